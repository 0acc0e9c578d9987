"""Every command of docs/clusters.md runs, shortened to one step; its tables name what there is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.end_to_end.test_readme import commands
from trainer.commands.submit.options import MODES
from trainer.launchers import LAUNCHERS

PAGE = (harness.ROOT / "docs" / "clusters.md").read_text()
SMALL = [
    *(word for word in harness.SMALL[1:] if "optim.lr" not in word),
    "data.sources=[{paths: [corpus]}]",
    "train.stop_after_steps=1",
]


def test_every_launcher_and_every_flag_is_there() -> None:
    for name in LAUNCHERS:
        assert f"| `{name}` |" in PAGE
    for flag in MODES:
        assert f"`{flag}`" in PAGE


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("command", commands("docs/clusters.md"))
def test_command_of_the_page(tmp_path: Path, command: str) -> None:
    harness.write_corpus(tmp_path / "corpus")
    follow = [] if "--dry-run" in command or "--follow" in command else ["--follow"]
    words = [sys.executable, str(harness.ROOT / shlex.split(command)[1]), *shlex.split(command)[2:], *SMALL, *follow]
    done = subprocess.run(
        words, cwd=tmp_path, env=harness.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("job.sh" if "--dry-run" in command else "step      1/") in done.stdout
