"""The doctor's stages over a store, each rank a thread: what rank 0 says of ranks that fall silent; and the script."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests import harness
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


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "doctor.py"), *arguments],
        env={**harness.environment(), "PYTHONPATH": str(harness.ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_here_the_doctor_finds_no_device() -> None:
    done = doctor("--json")
    assert done.returncode == 3
    found: dict[str, Any] = {line["what"]: line for line in json.loads(done.stdout)["lines"]}
    assert found["Neuron devices"]["found"] == "0 /dev/neuron*"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_ranks_share_a_directory_and_add_up(tmp_path: Path) -> None:
    done = doctor("--backend", "native", "--ranks", "2", "--runs", str(tmp_path), "--json")
    told = json.loads(done.stdout)
    lines = {line["what"]: line for line in told["lines"]}
    assert lines["all-reduce"]["found"] == "2 on all ranks"
    assert lines[f"shared {tmp_path}"]["fine"]
    assert done.returncode == (3 if told["mend"] else 0)


@pytest.mark.slow
def test_a_host_that_never_comes_is_named(tmp_path: Path) -> None:
    launch = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    launch |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(harness.free_port())}
    given = ["--backend", "native", "--runs", str(tmp_path), "--hosts", "here,away", "--seconds", "3"]
    done = doctor(*given, **launch)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "silent: away (rank 1)" in done.stdout
