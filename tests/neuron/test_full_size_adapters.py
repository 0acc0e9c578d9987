"""Every full-size recipe with adapters under neuronx-distributed, at its intended world size.

What a rank holds, and what a step of it sends, by closed forms (arXiv:2106.09685; arXiv:2205.05198, section 4.2.2, for
what sequence parallelism sends).
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.neuron.full_size import ADAPTED, planned, ranks_of_stages, replicas, short
from tests.neuron.library import DOUBLE, lazily
from tests.neuron.test_full_size import lowering, of_ranks
from tests.ranks import attempt
from tests.recipes.closed_forms import Rank
from trainer.config.schema import Config
from trainer.rehearsal.verdict import Verdict

RECIPES = [pytest.param(recipe, True, marks=pytest.mark.nxd, id=f"{recipe}-source") for recipe in ADAPTED]
ON_DOUBLE = pytest.param("llama3_8b_lora", False, marks=pytest.mark.slow, id="llama3_8b_lora-double")
BF16, FP32 = 2, 4


@pytest.fixture
def source(request: pytest.FixtureRequest, real: bool) -> Path:
    return Path(request.getfixturevalue("nxd_source")) if real else DOUBLE


def adapters(config: Config, rank: Rank) -> tuple[list[tuple[int, int]], int]:
    """Shapes of a layer's A and B on a rank, and how many elements of them each tensor-parallel rank has in full.

    A linear that is cut by rows of its weight (column-parallel) has A in full and its rows of B; one that is cut by
    columns has its columns of A, and B in full.
    """
    model, size, (query, key_value, wide) = config.model, config.adapter.rank, rank.widths
    assert config.adapter.targets == ["all-linear"]
    assert model.activation == "swiglu"
    shapes = [
        shape for rows in (query, key_value, key_value, wide, wide) for shape in ((size, model.hidden), (rows, size))
    ]
    shapes += [shape for columns in (query, wide) for shape in ((size, columns), (model.hidden, size))]
    return shapes, 7 * size * model.hidden


@pytest.mark.parametrize(("recipe", "real"), [*RECIPES, ON_DOUBLE])
def test_ranks_hold_adapters_beside_frozen_weights(recipe: str, source: Path, tmp_path: Path) -> None:
    config, derived = planned(recipe)
    stages = ranks_of_stages(config, derived)
    found = attempt(of_ranks("hold", stages, recipe=recipe), tmp_path, lazily(source))
    layers, data = derived.stages or (range(config.model.layers),), replicas(config, derived)
    for index, ranks in enumerate(stages):
        rank = Rank(config, len(layers[index]), index == 0, index == len(stages) - 1, data, derived.accumulation)
        shapes, _ = adapters(config, rank)
        frozen, trained = rank.parameters(), len(layers[index]) * sum(map(math.prod, shapes))
        verdict = Verdict(config.precision.mode, frozen + trained, data, 0, frozen)
        for number in ranks:
            [here] = found[number]
            held = Counter(tuple(shape) for name, shape in here["shapes"].items() if "lora" in name)
            assert held == Counter(shapes * len(layers[index]))
            assert sum(map(math.prod, here["shapes"].values())) == frozen + trained
            assert here["bytes"]["weights"] == BF16 * (frozen + trained)
            assert here["bytes"]["gradients"] == FP32 * trained
            assert sum(here["bytes"].values()) == pytest.approx(verdict.static, rel=1e-3)


@pytest.mark.parametrize(("recipe", "real"), RECIPES)
def test_a_step_sends_gradients_of_adapters_alone(recipe: str, source: Path, tmp_path: Path) -> None:
    config, derived = planned(recipe, short(recipe))
    found = attempt(lowering(recipe), tmp_path, lazily(source))
    layers, data = [len(stage) for stage in derived.stages] or [config.model.layers], replicas(config, derived)
    for index, ranks in enumerate(ranks_of_stages(config, derived)):
        last = index == len(layers) - 1
        rank = Rank(config, layers[index], index == 0, last, data, derived.accumulation)
        for number in ranks:
            [here] = found[number]
            assert not here["host"]
            assert not here["dynamic"]
            assert here["dots"] == ["bf16"]
            sent = by_axis(here["collectives"])
            check_update(config, rank, sent)
            if config.parallel.tp > 1 and config.parallel.pp == 1:
                check_blocks(config, rank, sent)


Sent = dict[tuple[str, str, str], Counter[int]]


def by_axis(lines: list[str]) -> Sent:
    """(kind, axis, dtype) -> how many collectives of how many bytes."""
    sent: Sent = {}
    for line in lines:
        kind, axis, _, dtype, size = line.split()
        sent.setdefault((kind, axis, dtype), Counter())[int(size)] += 1
    return sent


def total(sizes: Counter[int]) -> int:
    return sum(size * count for size, count in sizes.items())


def check_update(config: Config, rank: Rank, sent: Sent) -> None:
    """What each tensor-parallel rank has whole is summed over them; the rows of all, padded, over the data ranks."""
    shapes, whole = adapters(config, rank)
    padded = rank.layers * sum(-(-rows // rank.data) * rank.data * width for rows, width in shapes)
    over = "data" if config.parallel.tp > 1 else "tp"  # of a world of one the first axis is named
    assert total(sent["reduce-scatter", over, "f32"]) == FP32 * padded
    assert total(sent["all-gather", over, "bf16"]) == BF16 * padded // rank.data
    if config.parallel.tp > 1:
        marks = 3 * rank.last * rank.microbatches * config.train.microbatch * config.data.seq_len
        assert total(sent["all-reduce", "tp", "f32"]) == FP32 * (rank.layers * whole + marks)


def check_blocks(config: Config, rank: Rank, sent: Sent) -> None:
    """Forward, a block gathers and scatters; so do embedding and head. Backward, it gathers its output's gradient and
    scatters its input's, and the head scatters; no input is gathered for a gradient of frozen weights. An adapter sends
    its low-rank rows once each way.
    """
    assert config.parallel.sp
    tokens = config.train.microbatch * config.data.seq_len
    again = rank.layers if config.parallel.recompute == "full" else 0
    part = BF16 * tokens // config.parallel.tp
    wide, low = config.model.hidden, config.adapter.rank
    gathers, scatters = sent["all-gather", "tp", "bf16"], sent["reduce-scatter", "tp", "bf16"]
    assert gathers[part * wide] == 2 * (2 * rank.layers + again) + 1
    assert scatters[part * config.parallel.tp * wide] == 2 * (2 * rank.layers + again) + 2
    assert gathers[part * low] >= 7 * rank.layers
    assert scatters[part * config.parallel.tp * low] >= 7 * rank.layers
    assert set(gathers) == {part * wide, part * low}


def test_there_are_recipes_with_adapters() -> None:
    known: Any = {"smollm2_lora", "deepseek7b_lora", "deepseek67b_lora", "llama3_8b_lora", "qwen3_8b_lora"}
    assert known <= set(ADAPTED)
