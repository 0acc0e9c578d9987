"""Layouts share one state: each reads the others' checkpoints bitwise, moments included, and goes on with the curve.

(That initial weights are bitwise equal is part of test_matrix.py.)
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests import harness
from tests.distributed.exchange_worker import CHECKPOINT
from tests.distributed.layouts import parse
from tests.ranks import Outcomes, Task, attempt
from tests.selection import in_ci

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first test waits for all the training

PADDED = ["one-padded", "tp4-padded", "dp2-zero3-padded", "dp2-tp2-padded", "tp2-sp-cp2-padded"]
"""Between them: no cut, replicated heads, padding, two axes, slices over data and over tensor ranks."""
TIED = ["one", "pp2-interleaved", "dp2-tp2-sp-pp2-zero1"]
"""A head at one end of the pipeline that is the embedding at the other, whole and in slices of slices."""
GROUPS = [*PADDED, *TIED]
LAYOUTS = in_ci(GROUPS, ["one-padded", "tp4-padded", "dp2-zero3-padded"])
TENSORS = {"one-padded": 3 + 5 * 12, "one": 2 + 5 * 9}
"""Embedding, final norm and perhaps a head; five layers."""


@pytest.fixture(scope="module")
def groups(selected: list[dict[str, str]]) -> list[list[str]]:
    """Of each model, the layout of one process and those whose tests are to run."""
    wanted = {params["layout"] for params in selected}
    found = [[layout for layout in group if layout in {group[0], *wanted}] for group in (PADDED, TIED)]
    return [group for group in found if wanted & set(group)]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints are."""
    return tmp_path_factory.mktemp("exchange")


@pytest.fixture(scope="module")
def outcomes(groups: list[list[str]], cwd: Path) -> Outcomes:
    """Each layout saves, and then loads what those of the same model have saved."""
    harness.write_corpus(cwd / "corpus")
    tasks = {("save", layout): _task("save", layout) for group in groups for layout in group}
    tasks |= {("exchange", layout): _task("exchange", layout, sources=group) for group in groups for layout in group}
    return attempt(tasks, cwd)


def _task(work: str, layout: str, **arguments: list[str]) -> Task:
    name = f"tests.distributed.exchange_worker:{work}"
    return Task(name, parse(layout).processes, {"layout": layout, **arguments}, seconds=300, silent=True)


def whole_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors put together from their chunks, each index written exactly once."""
    tensors = {}
    for part in ("model", "optimizer"):
        for name, entry in json.loads((checkpoint / part / "index.json").read_text())["tensors"].items():
            tensor, covered = torch.full(entry["shape"], math.nan), 0
            ends = [[*cut[1:], extent] for cut, extent in zip(entry["cuts"], entry["shape"], strict=True)]
            spans = [[*map(slice, cut, end)] for cut, end in zip(entry["cuts"], ends, strict=True)]
            for rank, place in zip(entry["ranks"], itertools.product(*spans), strict=True):
                key = name if len(entry["ranks"]) == 1 else f"{name}@{','.join(str(part.start) for part in place)}"
                with safe_open(checkpoint / part / f"rank-{rank:05d}.safetensors", framework="pt") as reader:
                    tensor[place] = reader.get_tensor(key)
                covered += tensor[place].numel()
            assert covered == tensor.numel()
            assert not tensor.isnan().any(), name
            tensors[f"{part} {name}"] = tensor
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_reads_the_others_bitwise_and_goes_on(
    groups: list[list[str]], outcomes: Outcomes, cwd: Path, layout: str
) -> None:
    (group,) = [group for group in groups if layout in group]
    straight, curves = outcomes["save", group[0]][0], outcomes["exchange", layout][0]["curves"]
    assert outcomes["save", layout]
    for source in group:
        expected = whole_tensors(cwd / source / CHECKPOINT)
        actual = whole_tensors(cwd / layout / source / CHECKPOINT)
        assert expected.keys() == actual.keys()
        assert len(expected) == 3 * TENSORS[group[0]]
        assert any(name.startswith("optimizer exp_avg_sq") and values.any() for name, values in expected.items())
        for name in expected:
            assert torch.equal(expected[name], actual[name]), (source, name)
        harness.assert_same_curve(straight, curves[source])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_that_is_not_finite_on_one_rank_touches_nothing(outcomes: Outcomes, layout: str) -> None:
    assert outcomes["save", layout]
    assert all(rank["poisoned"] >= 6 for rank in outcomes["exchange", layout])
