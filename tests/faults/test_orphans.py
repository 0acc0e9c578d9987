"""A worker whose launcher died before the worker could ask to be told: it notices by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = """
import os, subprocess, sys
os.environ["TRAINER_LAUNCHER_PID"] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""
WORKER = """
import os, sys
sys.stdin.readline()  # until the launcher is as the test wants it
from trainer.run.orphans import follow_launcher
open(sys.argv[1], "w").write(str(follow_launcher()))
"""


@pytest.mark.parametrize("reaped", [False, True], ids=["a-zombie", "gone"])
def test_a_launcher_that_is_dead_already_is_noticed(tmp_path: Path, reaped: bool) -> None:
    """kill -9 of a launcher whose parent does not wait for it leaves a zombie, to which signals can still be sent."""
    answer = tmp_path / "answer"
    command = [sys.executable, "-c", LAUNCHER, WORKER, str(answer)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            launcher.wait()
        launcher.stdin.write(b"\n")
        launcher.stdin.flush()
        launcher.stdout.read()  # until the worker, which inherited it, has ended
    assert answer.read_text() == "False"


def test_a_launcher_that_lives_is_followed(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    environment = {**os.environ, "TRAINER_LAUNCHER_PID": str(os.getpid())}
    subprocess.run([sys.executable, "-c", WORKER, str(answer)], env=environment, input=b"\n", check=True)
    assert answer.read_text() == "True"
