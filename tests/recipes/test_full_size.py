"""Every full-size recipe takes a whole step at its intended world size, on fake tensors, as its formulas say."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir

from recipes.rehearse import piece_of, ranks_of
from tests.recipes.adapted_forms import AdaptedRank
from tests.recipes.closed_forms import Rank
from trainer.commands.entry import register_schema
from trainer.config.arithmetic import parameters
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.schema import Config
from trainer.models.family import family_of
from trainer.rehearsal.rehearse import rehearse
from trainer.rehearsal.report import describe
from trainer.rules.check import validate
from trainer.rules.derived import derive, effective
from trainer.rules.quantities import pretended
from trainer.run.world import World

SLOW = {"deepseek7b": [pytest.mark.slow], "smollm2_135m": [pytest.mark.slow, pytest.mark.long]}
"""In CI tensor parallelism and ZeRO; ZeRO alone is long. A pipeline of uneven stages, DeepSeek 67B's, takes minutes;
README's command rehearses it in CI too."""
ALL = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml") if path.stem != "tiny")
RECIPES = [pytest.param(name, marks=SLOW.get(name, [pytest.mark.recipes])) for name in ALL]


def configured(recipe: str) -> Config:
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return to_config(compose("train", [f"recipe={recipe}", "backend=fake"]))


@pytest.mark.parametrize("recipe", ALL)
def test_the_published_number_of_parameters(recipe: str) -> None:
    model = configured(recipe).model
    with torch.device("meta"):
        counted = sum(p.numel() for p in family_of(model).build().parameters())
    assert counted == parameters(model)
    assert model.published_parameters in (None, counted)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_is_what_the_formulas_say(recipe: str) -> None:
    config = configured(recipe)
    world = pretended(config, World(cpu_bf16=True))
    assert world.size == config.parallel.cores
    validate(config, world)
    derived = derive(config, world)
    config = effective(config, derived)
    reports = rehearse(piece_of(config, derived), ranks_of(config, derived))
    layers = [len(stage) for stage in derived.stages] or [config.model.layers]
    seen = set()
    for report in reports:
        print("\n".join(describe(report)))
        stage = report.mesh.coordinate("pp")
        seen.add(layers[stage])
        ends = (stage == 0, stage == config.parallel.pp - 1)
        start = sum(layers[:stage])
        kind = Rank if config.adapter.kind == "none" else AdaptedRank
        expected = kind(config, layers[stage], *ends, derived.dp, derived.accumulation, start)
        assert report.parameters == expected.parameters()
        flops = report.totals.flops
        assert flops.matmul == pytest.approx(expected.matmul_flops(), rel=0.01)
        assert flops.attention == pytest.approx(expected.attention_flops(), rel=0.01)
        assert flops.recomputed == pytest.approx(expected.recomputed_flops(), rel=0.01)
        counted = {tuple(key): (entry.count, entry.bytes) for key, entry in report.totals.traffic.items()}
        assert counted == expected.traffic()
        assert report.verdict.fits, str(report.verdict)
    assert seen == set(layers), "every kind of stage was rehearsed"


def test_the_stages_together_are_the_model() -> None:
    """Closed form against closed form: what the ranks hold adds up, copies of key-value heads and norms apart."""
    config = configured("deepseek67b")
    derived = derive(config, pretended(config, World(cpu_bf16=True)))
    tp, last = config.parallel.tp, config.parallel.pp - 1
    held = sum(
        Rank(config, len(stage), n == 0, n == last, derived.dp, 1).parameters() * tp
        for n, stage in enumerate(derived.stages)
    )
    model = config.model
    copies = (tp // model.kv_heads - 1) * 2 * model.layers * model.kv_heads * 128 * model.hidden
    norms = (tp - 1) * (2 * model.layers + 1) * model.hidden
    assert held - copies - norms == parameters(model)
