"""Pipelines on gloo give the loss and gradients of the model in one piece, and hold no more than they must."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from tests.ranks import Task, run

pytestmark = pytest.mark.slow

Findings = list[dict[str, dict[str, float]]]
"""By rank, by case (kind:virtual stages:microbatches)."""

KINDS = {"1f1b": 1, "interleaved_1f1b": 2, "interleaved_zero_bubble": 2}


def trained(folder: Path, processes: int, cases: list[str]) -> Findings:
    task = Task("tests.distributed.pipeline_worker:findings", processes, {"cases": cases}, seconds=300)
    return run(task, folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Every schedule over two processes; 16 microbatches for the memory."""
    cases = [f"{kind}:{virtual}:{count}" for (kind, virtual), count in product(KINDS.items(), (4, 8, 16))]
    return trained(tmp_path_factory.mktemp("two"), 2, cases)


def check(findings: Findings, case: str) -> None:
    for rank, found in enumerate(findings):
        print(f"{case} rank {rank}: {found[case]}")
        assert found[case]["loss"] <= 1e-6
        assert found[case]["gradient"] <= 1e-5
        assert found[case]["evaluation"] <= 1e-6
        assert found[case]["targets"] == 0
        assert found[case]["logits"] <= 1e-5
        assert found[case]["left"] == 0, "a buffer outlives the step"


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes(two: Findings, kind: str, count: int) -> None:
    check(two, f"{kind}:{KINDS[kind]}:{count}")


def test_four_processes(tmp_path: Path) -> None:
    cases = ["1f1b:1:4", "1f1b:1:8"]
    found = trained(tmp_path, 4, cases)
    for case in cases:
        check(found, case)


@pytest.mark.parametrize("kind", KINDS)
def test_buffers_do_not_grow_with_the_microbatches(two: Findings, kind: str) -> None:
    for found in two:
        eight, sixteen = (found[f"{kind}:{KINDS[kind]}:{count}"]["peak"] for count in (8, 16))
        assert 0 < eight == sixteen


def test_weight_gradients_of_the_zero_bubble_are_announced(two: Findings) -> None:
    """Once a microbatch and stage, 8 x 2; elsewhere autograd's hooks run."""
    for kind, expected in {"1f1b": 0, "interleaved_1f1b": 0, "interleaved_zero_bubble": 16}.items():
        assert [found[f"{kind}:{KINDS[kind]}:8"]["folds"] for found in two] == [expected, expected]
