"""A pipeline stage runs a constant number of graphs a step, which nobody changes unawares.

Each stage alone, on the real lazy tensors and neuronx-distributed's real engine, with the compile guard armed after two
steps of six: a late graph, or another number of launches, would be an error. The numbers are compared with a golden
file, and with a closed form of the schedule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.layouts import parse
from tests.neuron.library import lazily
from tests.ranks import Task, attempt

pytestmark = pytest.mark.nxd

GOLDEN = Path(__file__).parents[1] / "golden" / "neuron_graphs.json"
LAYOUTS = ["pp2", "pp4", "pp2-interleaved", "tp2-sp-pp2", "pp2-full", "pp2-full-blocks16"]
MICROBATCHES = 4
MOST_BESIDES = 3
"""Graphs of a step that belong to no microbatch: inputs arrive, losses are added up, the phase ends."""


@pytest.fixture(scope="module")
def found(nxd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By layout, what each stage's first rank found."""
    tasks = {}
    for layout in LAYOUTS:
        parallel = parse(layout).parallel
        for rank in range(0, parallel.pp * parallel.tp, parallel.tp):
            tasks[layout, rank] = Task("tests.neuron.pipeline_graphs:stage", 1, {"layout": layout, "rank": rank})
    outcomes = attempt(tasks, tmp_path_factory.mktemp("graphs"), lazily(nxd_source))
    return {layout: [outcomes[key][0] for key in tasks if key[0] == layout] for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_many_graphs_as_the_golden_file_says(layout: str, found: dict[str, list[dict[str, Any]]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert [{name: stage[name] for name in ("graphs", "launches")} for stage in found[layout]] == golden[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_graph_for_each_pass_and_each_message(layout: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Of every microbatch and every stage: forward, backward, and a message each way with each neighbour."""
    pp, virtual = parse(layout).parallel.pp, parse(layout).parallel.pipeline.virtual_stages
    for rank, stage in enumerate(found[layout]):
        numbers = [rank + pp * chunk for chunk in range(virtual)]
        each = sum(2 + 2 * (number > 0) + 2 * (number < pp * virtual - 1) for number in numbers)
        assert 0 < stage["launches"]["pipeline"] - MICROBATCHES * each <= MOST_BESIDES
        assert stage["launches"]["optimizer"] == stage["graphs"]["optimizer"] == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_graph_is_compared_before_it_runs(layout: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """The engine's cuts go our way, where ranks agree on collectives; nothing is launched by other means."""
    for stage in found[layout]:
        for phase in ("pipeline", "optimizer"):
            assert stage["looked"][phase] >= 2 * stage["launches"][phase]
        assert stage["outside"] == [2, 2], "what setting up launches"
