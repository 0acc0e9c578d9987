"""What is slow, or has another clock, is waited for and agreed with: these launches end as if nothing were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import harness
from tests.ranks import Task, run
from trainer.checkpoint.verify import fault

pytestmark = pytest.mark.slow

COMMON = [
    *harness.SMALL,
    "model.layers=1",
    "train.steps=6",
    "train.microbatch=2",
    "precision=fp32",
    "data.sources=[{paths: [corpus]}]",
]


def _launch(cwd: Path, kind: str, *overrides: str, slow: float = 0) -> str:
    harness.write_corpus(cwd / "corpus")
    arguments = {"kind": kind, "overrides": [*COMMON, *overrides, "run.name=r"], "seconds": 100, "slow": slow}
    ranks = run(Task("tests.faults.injected:launch", 2, arguments, seconds=120), cwd)
    assert [rank["code"] for rank in ranks] == [0, 0], ranks[0]["output"] + ranks[1]["output"]
    output: str = ranks[0]["output"]
    return output


def test_text_that_takes_longer_than_a_collective_may_is_waited_for(tmp_path: Path) -> None:
    """A replaced node tokenises for an hour; its neighbours wait for its word, and not in a collective."""
    output = _launch(tmp_path, "slow text", "backend.timeout_seconds=4")
    assert "is complete" in output


@pytest.mark.long
def test_set_up_that_takes_longer_than_a_collective_may_is_waited_for(tmp_path: Path) -> None:
    """A step has backend.timeout_seconds, which is short; building and loading have reliability.setup_seconds."""
    output = _launch(tmp_path, "slow set-up", "backend.timeout_seconds=4")
    assert "is complete" in output


@pytest.mark.long
def test_saves_by_minutes_follow_one_clock(tmp_path: Path) -> None:
    """Rank 1's clock is hours ahead and would save before every step; rank 0's says every 3 s, of steps of 2 s."""
    _launch(tmp_path, "another clock", "checkpoint.every_minutes=0.05", "checkpoint.keep=0", slow=1.0)
    saved = sorted((tmp_path / "runs/r/checkpoints").glob("step-*"))
    assert 2 <= len(saved) <= 4, [path.name for path in saved]
    assert [fault(path) for path in saved] == [None] * len(saved)
