"""A program that a test starts, sends signals to, and reads line by line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import harness


@contextmanager
def started(command: list[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block; what it prints comes through one pipe."""
    environment = {**harness.environment(), "PYTHONPATH": f"{harness.ROOT}:{cwd}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=cwd, env=environment, text=True, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert any(read == line + "\n" for read in process.stdout)


def rest(process: subprocess.Popen[str], code: int) -> str:
    """What a process still prints until it ends with this code."""
    output, _ = process.communicate(timeout=30)  # until the last that holds the pipe is gone
    assert process.returncode == code, output
    return output
