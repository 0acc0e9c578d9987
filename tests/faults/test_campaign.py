"""The fault campaign's command, at its shortest: `make campaign` takes a quarter of an hour."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import harness


@pytest.mark.slow
@pytest.mark.long
def test_runs_that_are_killed_and_stopped_end_as_those_that_are_not() -> None:
    command = [sys.executable, "-m", "tests.faults.campaign", "--short"]
    done = subprocess.run(
        command, cwd=harness.ROOT, env=harness.environment(), text=True, capture_output=True, timeout=500
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| SIG")]
    assert sum(int(row[2]) for row in rows if "SIGKILL" in row[0]) == 6
    assert sum(int(row[2]) for row in rows if "SIGTERM" in row[0]) == 2
    assert all(row[5].startswith("yes") for row in rows)
