"""The runner of tests/ranks.py: what ranks find, what is told of those that fail, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import harness
from tests.ranks import RanksFailed, Setting, Task, attempt, run

HERE = "tests.unit.test_ranks"


def tell(add: int) -> list[int]:
    return [int(os.environ["RANK"]) + add, int(os.environ["WORLD_SIZE"]), int(os.environ.get("MARK", 0))]


def leave() -> None:
    if os.environ["RANK"] == "1":
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    wait()


def speak() -> None:
    print("a warning")


def wait() -> None:
    Path(f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    time.sleep(600)


def test_findings_come_by_rank(tmp_path: Path) -> None:
    found = run(Task(f"{HERE}:tell", 3, {"add": 7}), tmp_path, Setting({"MARK": "5"}))
    assert found == [[7, 3, 5], [8, 3, 5], [9, 3, 5]]


def test_a_failure_is_told_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    tasks = {
        "leaves": Task(f"{HERE}:leave", 2),
        "hangs": Task(f"{HERE}:wait", seconds=1.5),
        "speaks": Task(f"{HERE}:speak", silent=True),
        "may speak": Task(f"{HERE}:speak"),
    }
    outcomes = attempt(tasks, tmp_path)
    for key, words in {
        "leaves": "rank 1 ended with signal 9\n--- rank 1\nthe last words",
        "hangs": "hung for 1.5 s",
        "speaks": "not silent:\n--- rank 0\na warning",
    }.items():
        with pytest.raises(RanksFailed) as failed:
            _ = outcomes[key]
        assert words in str(failed.value)
    assert outcomes["may speak"] == [None]


def test_ranks_do_not_outlive_a_test_that_is_killed(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tests.ranks import *; run(Task('{HERE}:wait', 2), Path({str(tmp_path)!r}))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=harness.ROOT, env=harness.environment()) as test:
        started = [tmp_path / "0.pid", tmp_path / "1.pid"]
        _until(lambda: all(path.exists() and path.read_text() for path in started))
        test.kill()
    pids = [int(path.read_text()) for path in started]
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
