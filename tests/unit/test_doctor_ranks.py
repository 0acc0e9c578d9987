"""The doctor's stages over a store, each rank a thread: what rank 0 says of ranks that fall silent in one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.backends.common.peers import Peers
from trainer.commands.doctor import ranks
from trainer.commands.doctor.line import Line
from trainer.commands.doctor.present import Present
from trainer.commands.doctor.ranks import Meeting, attend, end, examine
from trainer.errors import HangError

SIZE = 2
Change = Callable[[Meeting], Meeting]


def met(runs: Path, other: Change = lambda m: m, first: Change = lambda m: m) -> tuple[dict[str, Line], list[bool]]:
    """Both ranks' ends. other, first: what rank 1 and rank 0 do otherwise than sound ones."""
    store = dist.HashStore()
    ended: list[bool] = []

    def meeting(rank: int) -> Meeting:
        return Meeting(Peers(store, rank, SIZE), 1, runs, 1.0, (), lambda: float(SIZE))

    def second() -> None:
        try:
            ended.append(attend(other(meeting(1)), Present(1, 1, "far", "boot-1")))
        except HangError:
            return

    thread = threading.Thread(target=second)
    thread.start()
    mine = first(meeting(0))
    lines = {line.what: line for line in examine(mine, Present(0, 0, "near", "boot-0"))}
    end(mine, all(line.fine for line in lines.values()))
    thread.join(timeout=30)
    return lines, ended


def test_two_sound_ranks(tmp_path: Path) -> None:
    lines, ended = met(tmp_path / "runs")
    assert [what for what, line in lines.items() if not line.fine] == []
    assert {"ranks", "clocks", f"shared {tmp_path / 'runs'}", "all-reduce"} <= lines.keys()
    assert ended == [True]
    assert list((tmp_path / "runs").iterdir()) == [], "the shared file is gone again"


def test_a_directory_that_only_one_sees(tmp_path: Path) -> None:
    lines, ended = met(tmp_path / "runs", lambda meeting: replace(meeting, runs=tmp_path / "other"))
    line = lines[f"shared {tmp_path / 'runs'}"]
    assert line.found == "not on far (rank 1)"
    assert "mount it on far" in line.remedy
    assert ended == [False]


def test_a_directory_that_rank_0_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines, ended = met(tmp_path / "file" / "runs")
    assert "restore access" in lines[f"shared {tmp_path / 'file' / 'runs'}"].remedy
    assert lines["all-reduce"].fine
    assert ended == [False]


def test_a_sum_that_does_not_come_and_one_that_is_wrong(tmp_path: Path) -> None:
    def unreached() -> float:
        raise RuntimeError("Gloo connectFullMesh failed\nmore")

    lines, _ = met(tmp_path / "runs", lambda meeting: replace(meeting, reduce=unreached))
    assert lines["all-reduce"].found == "RuntimeError: Gloo connectFullMesh failed on far (rank 1)"
    assert "GLOO_SOCKET_IFNAME" in lines["all-reduce"].remedy


def test_a_rank_that_falls_silent_before_the_sum(tmp_path: Path) -> None:
    class Gone(Exception):
        pass

    def leave() -> float:
        raise Gone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        lines, ended = met(tmp_path / "runs", lambda meeting: replace(meeting, reduce=leave))
    assert lines["all-reduce"].found == "silent: far (rank 1)"
    assert ended == []


def test_a_clock_that_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ranks.time.time
    monkeypatch.setattr(
        ranks.time, "time", lambda: clock() + (60 if threading.current_thread() is not threading.main_thread() else 0)
    )
    lines, _ = met(tmp_path / "runs")
    assert "far is 60" in lines["clocks"].found
    assert "ahead" in lines["clocks"].found
