"""Every full-size recipe under neuronx-distributed at its intended world size, without a device and without a run.

What a rank holds is compared with the native plan, closed forms and the memory formula; the collectives of its step, of
a shortened model, with closed forms and with the golden files in tests/golden/neuron_collectives, which were reviewed.
To write them again after a change that is meant:

    .venv/bin/python -m tests.neuron.write_golden <checkout of neuronx-distributed>/src [recipe ...]
"""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.neuron.full_size import CASES, SENDING, planned, ranks_of_stages, replicas, short
from tests.neuron.library import DOUBLE, lazily
from tests.neuron.traffic_form import Stage
from tests.ranks import Task, attempt
from tests.recipes.closed_forms import Rank
from tests.selection import in_ci
from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.parallel.placement import Placement
from trainer.rehearsal.verdict import BYTES, Verdict

GOLDEN = Path(__file__).parents[1] / "golden" / "neuron_collectives"
RECIPES = [pytest.param(recipe, True, marks=pytest.mark.nxd, id=f"{recipe}-source") for recipe in CASES]
SLOW = [pytest.mark.slow], [pytest.mark.slow, pytest.mark.long]
ON_DOUBLE = [
    pytest.param(recipe, False, marks=SLOW[recipe != "deepseek7b"], id=f"{recipe}-double")
    for recipe in ("smollm2_135m", "deepseek7b", "falcon7b")
]
"""The double's layers keep what they gathered, and so send less than the original: it holds the same, no more."""


@pytest.fixture
def source(request: pytest.FixtureRequest, real: bool) -> Path:
    return Path(request.getfixturevalue("nxd_source")) if real else DOUBLE


@pytest.mark.parametrize(("recipe", "real"), [*RECIPES, *ON_DOUBLE])
def test_ranks_hold_what_the_plan_says(recipe: str, source: Path, tmp_path: Path) -> None:
    config, derived = planned(recipe)
    stages = ranks_of_stages(config, derived)
    found = attempt(of_ranks("hold", stages, recipe=recipe), tmp_path, lazily(source))
    layers, data = derived.stages or (range(config.model.layers),), replicas(config, derived)
    assert sum(map(len, layers)) == config.model.layers
    for index, ranks in enumerate(stages):
        first, last = index == 0, index == len(stages) - 1
        expected = Rank(config, len(layers[index]), first, last, data, derived.accumulation).parameters()
        for rank in ranks:
            [here] = found[rank]
            placed = placements(config.model, config.parallel.tp, rank % config.parallel.tp)
            assert set(here["pieces"]) == names(config.model, layers[index], first, last)
            assert sum(math.prod(shape) for shape in here["shapes"].values()) == expected
            second = config.model.tied and last and not first
            check_pieces(here, placed, ("model.embed_tokens.weight",) if second else ())
            check_memory(here, Verdict(config.precision.mode, expected, data, 0))


def placements(model: ModelConfig, tp: int, rank: int) -> dict[str, Placement]:
    """Of the native plan."""
    with torch.device("meta"):
        shapes = {name: tuple(parameter.shape) for name, parameter in CausalLM(model).named_parameters()}
    return sharding_plan(model).place(shapes, tp, rank)


def names(model: ModelConfig, layers: range, first: bool, last: bool) -> set[str]:
    """Canonical, of a stage."""
    with torch.device("meta"):
        everywhere = [name for name, _ in CausalLM(model).named_parameters()]
    ends = {
        "model.embed_tokens": first or (last and model.tied),
        "model.embed_positions": first,
        "model.norm": last,
        "lm_head": last,
    }

    def here(name: str) -> bool:
        module = name.rpartition(".")[0]
        return ends[module] if module in ends else int(name.split(".")[2]) in layers

    return {name for name in everywhere if here(name)}


def check_pieces(here: dict[str, Any], placed: dict[str, Placement], copies: tuple[str, ...]) -> None:
    """Every tensor is its parameters, one above the other and nothing else, each where the native plan has it.

    copies: what a pipeline's last stage has besides the first, which writes it.
    """
    inside: dict[str, list[tuple[int, str]]] = {}
    for canonical, (tensor, boxes) in here["pieces"].items():
        top = boxes[0][2][0] - placed[canonical].boxes[0].local[0].start
        shifted = [
            [
                list(box.offsets),
                list(box.sizes),
                [box.local[0].start + top, *(s.start for s in box.local[1:])],
                1 if canonical in copies else box.copy,
            ]
            for box in placed[canonical].boxes
        ]
        assert boxes == shifted
        inside.setdefault(tensor, []).append((top, canonical))
    assert set(inside) == set(here["shapes"])
    for tensor, pieces in inside.items():
        row = 0
        for top, canonical in sorted(pieces):
            assert top == row
            row += placed[canonical].local_shape[0]
            assert list(placed[canonical].local_shape[1:]) == here["shapes"][tensor][1:]
        assert row == here["shapes"][tensor][0]


def check_memory(here: dict[str, Any], verdict: Verdict) -> None:
    """The tensors that the backend allocates, and those that the formula counts.

    NxD's ZeRO cuts rows and pads them to a multiple of the data ranks: Qwen3's 18,992 of the vocabulary to 19,008 over
    32. The formula leaves that out.
    """
    counted, (weight, gradient, optimizer) = here["bytes"], BYTES[verdict.precision]
    own = sum(-(-rows // verdict.data) * math.prod(rest) for rows, *rest in here["shapes"].values())
    assert counted["weights"] == verdict.parameters * weight
    assert counted["gradients"] == verdict.parameters * gradient
    assert counted["optimizer"] == own * optimizer
    assert sum(counted.values()) == pytest.approx(verdict.static, rel=1e-3)


@pytest.mark.parametrize(("recipe", "real"), [one for one in RECIPES if one.values[0] in SENDING])
def test_a_step_sends_what_the_layout_says(recipe: str, source: Path, tmp_path: Path) -> None:
    config, derived = planned(recipe, short(recipe))
    stages = ranks_of_stages(config, derived)
    found = attempt(lowering(recipe), tmp_path, lazily(source))
    golden = json.loads((GOLDEN / f"{recipe}.json").read_text())
    layers = [len(stage) for stage in derived.stages] or [config.model.layers]
    for index, ranks in enumerate(stages):
        expected = Stage(config, layers[index], index, replicas(config, derived), derived.accumulation).step()
        for rank in ranks:
            [here] = found[rank]
            assert here["collectives"] == expected, f"rank {rank}"
            assert not here["host"]
            assert not here["dynamic"]
            assert here["dots"] == ["bf16"]
        assert golden["stages"][index] == expected, "a change that is meant is written by tests.neuron.write_golden"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", in_ci(SENDING, ["smollm2_135m", "deepseek67b", "llama3_70b-cp2"]))
def test_the_golden_file_is_the_closed_form(recipe: str) -> None:
    """Without the source too: neither can change alone."""
    config, derived = planned(recipe, short(recipe))
    golden = json.loads((GOLDEN / f"{recipe}.json").read_text())
    layers = [len(stage) for stage in derived.stages] or [config.model.layers]
    assert golden["world"] == config.parallel.tp * config.parallel.pp * replicas(config, derived)
    assert golden["stages"] == [
        Stage(config, count, index, replicas(config, derived), derived.accumulation).step()
        for index, count in enumerate(layers)
    ]


def lowering(recipe: str) -> dict[int, Task]:
    """By rank, the task that finds its step as a graph."""
    stages = ranks_of_stages(*planned(recipe, short(recipe)))
    return of_ranks("lower_step", stages, recipe=recipe, layers=short(recipe))


def of_ranks(work: str, stages: list[list[int]], **arguments: Any) -> dict[int, Task]:
    """A task for each rank."""
    return {
        rank: Task(f"tests.neuron.pretended:{work}", 1, {**arguments, "rank": rank}, seconds=300)
        for rank in chain(*stages)
    }
