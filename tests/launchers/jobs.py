"""Small jobs that launchers start in tests: scripts that need no torch, and what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trainer.launchers.base import Launcher, State, Status
from trainer.launchers.request import Request


def request(directory: Path, lines: list[str], name: str = "job", **more: object) -> Request:
    """A job that is a Python program of these lines, started once."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / f"{name}.py"
    program.write_text("\n".join(["import os, signal, sys, time", "from pathlib import Path", *lines]) + "\n")
    given = {"processes": 0, "grace_seconds": 1.0, "working_directory": directory, **more}
    return Request(name, (str(program),), directory / "launch" / name, **given)  # type: ignore[arg-type]


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def end_of(launcher: Launcher, id: str, asked: Request, seconds: float = 30.0) -> Status:
    """The status with which a job ends."""
    wait_for(lambda: launcher.status(id, asked).state is not State.RUNNING, seconds)
    status = launcher.status(id, asked)
    assert status.state is State.ENDED, status
    return status
