"""Layouts share one state: each reads the others' checkpoints bitwise, moments included, and goes on with the curve.

(That initial weights are bitwise equal is part of test_matrix.py.)
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests import harness
from tests.distributed.contract import read_logs
from tests.distributed.exchange_worker import CHECKPOINT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first test waits for all the training

PADDED = ["one-padded", "tp4-padded", "dp2-zero3-padded", "dp2-tp2-padded", "tp2-sp-cp2-padded"]
"""Between them: no cut, replicated heads, padding, two axes, slices over data and over tensor ranks."""
TIED = ["one", "pp2-interleaved", "dp2-tp2-sp-pp2-zero1"]
"""A head at one end of the pipeline that is the embedding at the other, whole and in slices of slices."""
GROUPS = [*PADDED, *TIED]
LONG = ("dp2-tp2-padded", "tp2-sp-cp2-padded")
LAYOUTS = [pytest.param(layout, marks=[pytest.mark.long] * (layout in LONG)) for layout in GROUPS]
TENSORS = {"one-padded": 3 + 5 * 12, "one": 2 + 5 * 9}
"""Embedding, final norm and perhaps a head; five layers."""


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the selected layouts and of one process, and what each of the same model makes of the others'."""
    cwd = tmp_path_factory.mktemp("exchange")
    harness.write_corpus(cwd / "corpus")
    for group in selected(request):
        harness.work_in_forks("tests.distributed.exchange_worker", ["out", *group], cwd, timeout=600)
    return cwd / "out"


def selected(request: pytest.FixtureRequest) -> list[list[str]]:
    """Of each model, the layout of one process and those whose tests are to run."""
    items = [item for item in request.session.items if item.path == request.path]
    wanted = {item.callspec.params["layout"] for item in items}
    groups = [[layout for layout in group if layout in {group[0], *wanted}] for group in (PADDED, TIED)]
    return [group for group in groups if wanted & set(group)]


def whole_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors put together from their chunks, each index written exactly once."""
    tensors = {}
    for part in ("model", "optimizer"):
        for name, entry in json.loads((checkpoint / part / "index.json").read_text())["tensors"].items():
            tensor, covered = torch.full(entry["shape"], math.nan), 0
            for chunk in entry["chunks"]:
                place = tuple(slice(o, o + n) for o, n in zip(chunk["offsets"], chunk["sizes"], strict=True))
                with safe_open(checkpoint / part / chunk["file"], framework="pt") as reader:
                    tensor[place] = reader.get_tensor(chunk["key"])
                covered += math.prod(chunk["sizes"])
            assert covered == tensor.numel()
            assert not tensor.isnan().any(), name
            tensors[f"{part} {name}"] = tensor
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_reads_the_others_bitwise_and_goes_on(
    request: pytest.FixtureRequest, findings: Path, layout: str
) -> None:
    read_logs(findings / layout)
    (group,) = [group for group in selected(request) if layout in group]
    straight = json.loads((findings / group[0] / "curve.json").read_text())
    for source in group:
        expected = whole_tensors(findings / source / CHECKPOINT)
        actual = whole_tensors(findings / layout / source / CHECKPOINT)
        assert expected.keys() == actual.keys()
        assert len(expected) == 3 * TENSORS[group[0]]
        assert any(name.startswith("optimizer exp_avg_sq") and values.any() for name, values in expected.items())
        for name in expected:
            assert torch.equal(expected[name], actual[name]), (source, name)
        harness.assert_same_curve(straight, json.loads((findings / layout / source / "curve.json").read_text()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_that_is_not_finite_on_one_rank_touches_nothing(findings: Path, layout: str) -> None:
    read_logs(findings / layout)
    assert (findings / layout / "poisoned").exists()
