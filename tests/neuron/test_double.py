"""The double where the original cannot be asked: on lazy tensors, and where it does what NxD should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.neuron.library import DOUBLE, lazily, over_gloo
from tests.ranks import Task, attempt, run

pytestmark = pytest.mark.slow
WORKER = "tests.neuron.double_worker"
CASES = [("fp32", False), ("fp32", True), ("bf16", False)]


def stepped(device: str, directory: Path) -> list[dict[str, Any]]:
    """What each case found on the device."""
    tasks = {
        (dtype, tied): Task(f"{WORKER}:steps", 1, {"device": device, "tied": tied, "dtype": dtype})
        for dtype, tied in CASES
    }
    outcomes = attempt(tasks, directory, (lazily if device == "xla" else over_gloo)(DOUBLE))
    return [outcomes[case][0] for case in CASES]


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return stepped("xla", tmp_path_factory.mktemp("lazy"))


@pytest.mark.long
@pytest.mark.parametrize("case", range(len(CASES)))
def test_lazy_steps_read_nothing_and_compile_twice(case: int, lazy: list[dict[str, Any]]) -> None:
    for step, (before_sync, whole) in enumerate(lazy[case]["counts"]):
        assert before_sync == [0, 0, 0, 0], f"step {step} compiled, ran, read or fell back before its end"
        # Optimizer state is born in the first step, so the second has another graph.
        assert whole == [int(step < 2), int(step >= 2), 0, 0], f"step {step}"


@pytest.mark.long
def test_lazy_steps_are_eager_steps(lazy: list[dict[str, Any]], tmp_path: Path) -> None:
    eager = stepped("cpu", tmp_path)
    for (dtype, tied), one, other in zip(CASES, lazy, eager, strict=True):
        assert one["marks kept"]
        assert one["tied"] is tied
        losses = [[found["values"][0] for found in side["losses"]] for side in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5 if dtype == "fp32" else 5e-3)
        assert losses[0][0] != losses[0][1]
        if dtype == "fp32":
            for name, weight in one["weights"].items():
                assert weight["values"] == pytest.approx(other["weights"][name]["values"], abs=1e-5), name


def test_differs_where_neuronx_distributed_is_wrong(tmp_path: Path) -> None:
    found = run(Task(f"{WORKER}:differences", 4, {"tp": 2}), tmp_path, over_gloo(DOUBLE))
    for rank in found:
        assert rank.pop("column") < 0.1, "a BF16 rounding of sums of 16 products"
        assert rank.pop("loss gradient") < 2**-8
        assert rank.pop("smoothing refused")
        assert all(error < 1e-6 for error in rank.values()), rank


def test_a_pipeline_refuses_another_shape(tmp_path: Path) -> None:
    found = run(Task(f"{WORKER}:shapes", 2), tmp_path, over_gloo(DOUBLE))
    assert found == [{"first": True, "refused": True, "second": True}] * 2
