"""What every command does with its output and its ending, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness

COMMAND = """
import argparse, sys
from trainer.commands.command_line import run

def act(options):
    for number in range(2000):
        print("日本", number)
    print("done", file=sys.stderr)

sys.exit(run(argparse.ArgumentParser(), act))
"""


def command(redirections: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """The command behind a shell's redirections. more: variables of the environment."""
    line = f'{more} exec "$0" -c "$1" {redirections}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, COMMAND],
        env=harness.environment(),
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_output_that_a_full_disk_has_swallowed_is_no_success() -> None:
    done = command("> /dev/full")
    assert done.returncode == 3
    assert "1. standard output = 'No space left on device'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    done = command("| head -1; exit ${PIPESTATUS[0]}", "set -o pipefail;")
    assert (done.returncode, done.stdout, done.stderr) == (0, "日本 0\n", "done\n")


@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_may_be_closed(redirections: str) -> None:
    done = command(redirections)
    shown = {line.split()[0] for line in (done.stdout + done.stderr).splitlines()}
    expected = {"日本", "done"}
    expected -= {"日本"} if redirections.startswith(">&-") else set()
    expected -= {"done"} if "2>&-" in redirections else set()
    assert (done.returncode, shown) == (0, expected)


def test_what_an_encoding_lacks_is_escaped() -> None:
    done = command("", "PYTHONIOENCODING=ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("\\u65e5\\u672c 0\n")
