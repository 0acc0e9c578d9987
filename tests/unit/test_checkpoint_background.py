"""A save beside training, in one process: what is written, when it is reported, and what a failure costs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.background import HostBuffer
from trainer.checkpoint.directory import newest_sound, remove, surplus
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.names import checkpoints, name_of
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.write import Parts
from trainer.errors import ConfigError
from trainer.parallel.boxes import Placed, Store, whole_box


def store(value: float) -> Store:
    weight, moment = torch.full((30, 7), value), torch.full((30, 7), -value, dtype=torch.bfloat16)
    return Store(
        {"w": Placed(weight, (whole_box("w", (30, 7)),), (30, 7))},
        {"exp_avg.w": Placed(moment, (whole_box("exp_avg.w", (30, 7)),), (30, 7))},
    )


def value_in(path: Path) -> float:
    into = store(0.0)
    load_checkpoint(path, into)
    weight, moment = into.model["w"].tensor, into.optimizer["exp_avg.w"].tensor
    assert (weight == weight[0, 0]).all()
    assert (moment.float() == -weight[0, 0]).all()
    return weight[0, 0].item()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The disk takes nothing until the event is set."""
    gate, real = threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        assert gate.wait(30)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield gate
    gate.set()


def test_it_writes_what_was_there_when_it_began(tmp_path: Path, held: threading.Event) -> None:
    saver, live, state = Saver(tmp_path, 0, "", {}), store(1.0), TrainState(step=1, tokens=10, cursor={"drawn": 1})
    saver.begin(live, state)
    live.model["w"].tensor.fill_(5.0)
    state.step, state.tokens = 2, 20
    assert state.cursor is not None
    state.cursor["drawn"] = 2
    assert saver.finished() is None, "in flight"
    assert checkpoints(tmp_path) == []
    held.set()
    done = saver.wait()
    assert done is not None
    assert (done.step, done.path, done.error) == (1, tmp_path / "step-00000001", None)
    assert value_in(done.path) == 1.0
    assert load_checkpoint(done.path, store(0.0)) == TrainState(step=1, tokens=10, cursor={"drawn": 1})
    assert saver.finished() is None, "reported once"
    assert saver.wait() is None


def test_one_is_in_flight_and_each_is_reported(tmp_path: Path, held: threading.Event) -> None:
    """The second begins when the first has ended; both reports wait for whoever asks, in order."""
    saver = Saver(tmp_path, 0, "", {})
    saver.begin(store(1.0), TrainState(step=1))
    threading.Timer(0.2, held.set).start()
    saver.begin(store(2.0), TrainState(step=2))
    assert [path.name for path in checkpoints(tmp_path)][-1] == "step-00000001"
    reports = [saver.wait(), saver.wait(), saver.wait()]
    assert [report and report.step for report in reports] == [1, 2, None]
    assert [value_in(tmp_path / name_of(step)) for step in (1, 2)] == [1.0, 2.0]


def test_the_copy_too_may_be_made_beside_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """begin() returns while nothing is copied yet; copied() holds up the update until all is."""
    gate, real = threading.Event(), HostBuffer.take

    def take(self: HostBuffer, parts: Parts) -> Parts:
        assert gate.wait(30)
        return real(self, parts)

    monkeypatch.setattr(HostBuffer, "take", take)
    saver, live = Saver(tmp_path, 0, "", {}), store(1.0)
    saver.copied()
    saver.begin(live, TrainState(step=1), wait_for_copy=False)
    threading.Timer(0.2, gate.set).start()
    saver.copied()
    live.model["w"].tensor.fill_(5.0)
    assert saver.wait() is not None
    assert value_in(tmp_path / "step-00000001") == 1.0


def test_the_memory_of_the_copy_is_used_again(tmp_path: Path) -> None:
    saver, places = Saver(tmp_path, 0, "", {}), []
    saver.reserve(store(0.0))
    for step in (1, 2):
        places.append(saver._buffer._memory.data_ptr())
        saver.begin(store(float(step)), TrainState(step=step))
        saver.wait()
    assert places[0] == places[1] == saver._buffer._memory.data_ptr()
    assert len(saver._buffer._memory) < 30 * 7 * (4 + 2) + 2 * 64


def test_a_failure_costs_no_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = Saver(tmp_path, 1, "", {})
    saver.save(store(1.0), TrainState(step=1))
    with monkeypatch.context() as patch:

        def full(*arguments: object) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        saver.begin(store(2.0), TrainState(step=2))
        failed = saver.wait()
    assert failed is not None
    assert isinstance(failed.error, ConfigError)
    assert "No space left on device" in str(failed.error)
    assert newest_sound(tmp_path) == (tmp_path / "step-00000001", [])
    saver.begin(store(3.0), TrainState(step=3))
    ended = saver.wait()
    assert ended is not None
    assert ended.error is None
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert not list(tmp_path.glob(".saving-*")), "what the failed one left is gone"


def test_a_bug_in_the_thread_is_raised_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("trainer.checkpoint.commit.write_manifest", broken)
    saver = Saver(tmp_path, 0, "", {})
    saver.begin(store(1.0), TrainState(step=1))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        saver.wait()
    assert saver.finished() is None


def test_milestones_stay(tmp_path: Path) -> None:
    saver = Saver(tmp_path, 2, "", {}, keep_every=3)
    for step in range(1, 9):
        saver.save(store(1.0), TrainState(step=step))
    assert [path.name for path in checkpoints(tmp_path)] == [name_of(step) for step in (8, 7, 6, 3)]
    assert surplus(tmp_path, 8, keep=0, keep_every=0) == [], "0 keeps all"
    assert [path.name for path in surplus(tmp_path, 8, keep=1, keep_every=0)] == [name_of(n) for n in (7, 6, 3)]


def test_a_removal_that_is_interrupted_leaves_nothing_with_a_checkpoints_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = Saver(tmp_path, 0, "", {})
    for step in (1, 2):
        saver.save(store(1.0), TrainState(step=step))

    class Killed(BaseException):
        pass

    def die(path: Path) -> None:
        (path / "state.json").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("trainer.checkpoint.directory.shutil.rmtree", die)
        with pytest.raises(Killed):
            remove(tmp_path / "step-00000001")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002"]
    saver.save(store(1.0), TrainState(step=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step-00000002", "step-00000003"]


def test_a_checkpoint_that_a_user_moved_and_linked_is_used_and_let_go_of(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "checkpoints", 1, "", {})
    path = saver.save(store(1.0), TrainState(step=1))
    moved = path.rename(tmp_path / path.name)
    path.symlink_to(moved)
    assert newest_sound(tmp_path / "checkpoints") == (path, [])
    saver.save(store(2.0), TrainState(step=2))
    assert [left.name for left in checkpoints(tmp_path / "checkpoints")] == ["step-00000002"]
    assert value_in(moved) == 1.0, "the link is gone, and what it led to is the user's"
