"""Saves by several ranks, beside training and not: what is written is the copy, and no rank waits for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ranks import Task, run
from tests.selection import long

pytestmark = pytest.mark.slow
WORK = "tests.faults.checkpoint_worker"


def ranks(tmp_path: Path, work: str, count: int, **arguments: Any) -> list[dict[str, Any]]:
    return run(Task(f"{WORK}:{work}", count, arguments), tmp_path)


@pytest.mark.parametrize("count", [3, *long(1)])
def test_training_goes_on_while_the_copy_is_written(tmp_path: Path, count: int) -> None:
    for found in ranks(tmp_path, "beside_training", count):
        assert sorted(found["reports"]) == [[step, None] for step in (1, 2, 4, 5, 6)], "each reported once, none failed"
        assert found["sums"] == [sum(range(count))] * 6
        assert found["left"] == ["step-00000006", "step-00000005", "step-00000004"], "two newest, and a milestone of 4"
        assert all(found["loads"])


@pytest.mark.parametrize("beside", [True, *long(False)])
def test_a_disk_that_is_full_on_one_rank_is_every_ranks_error(tmp_path: Path, beside: bool) -> None:
    for found in ranks(tmp_path, "disk_full_on_one", 3, beside=beside):
        first, second, third = found["outcomes"]
        assert first is None
        assert third is None, "with room again, saving works again"
        code, text = second
        assert code == 3
        assert "rank 2: [Errno 28] No space left on device" in text
        assert "run.root" in text
        assert found["left"] == ["step-00000003", "step-00000001"]
        assert all(found["loads"])


def test_a_rank_that_never_comes_is_waited_for_no_longer_than_the_timeout(tmp_path: Path) -> None:
    *others, absent = ranks(tmp_path, "one_never_comes", 3, seconds=4)
    for found in others:
        step, (code, text) = found["report"]
        assert (step, code) == (2, 12)
        assert "older ones are untouched" in text
        assert found["waited"] < 20, "a limit: the group's timeout is 4 s, and rank 0 speaks last"
        assert found["threads"] == []
    assert [found["sum"] for found in (*others, absent)] == [3.0] * 3
    assert all(found["sound"] for found in (*others, absent))


@pytest.mark.parametrize("beside", [True, *long(False)])
def test_a_bug_on_one_rank_ends_the_save_on_all(tmp_path: Path, beside: bool) -> None:
    found = ranks(tmp_path, "a_bug_on_one", 3, beside=beside)
    assert "complex64" in found[1]["error"]
    assert "another rank" not in found[1]["error"]
    for rank in (0, 2):
        assert "a save failed on another rank: rank 1" in found[rank]["error"]
        assert "complex64" in found[rank]["error"]
    assert all(rank["left"] == 0 for rank in found)


def test_a_kill_at_any_instant_leaves_whole_checkpoints(tmp_path: Path) -> None:
    """Of writing, of the rename and of retention: each time the newest is sound and holds its step's values."""
    (rounds,) = run(Task(f"{WORK}:killed", 1, {"times": 60, "seed": 1}), tmp_path)
    steps = [found["step"] for found in rounds]
    assert steps == sorted(steps)
    assert steps[-1] > 7, "it got somewhere between kills"
    for found in rounds:
        assert found["faults"] == [], "what has the name of a checkpoint is whole"
        assert found["loads"]
        milestones = [step for step in found["left"] if step % 7 == 0]
        assert milestones == [step for step in range(found["step"], 0, -1) if step % 7 == 0]
        assert len(set(found["left"]) - set(milestones)) <= 3, "two, and one more where retention was interrupted"
    interrupted = [name for found in rounds for name in found["leftover"]]
    assert ".saving-" in interrupted, "some kills fell into a save"
