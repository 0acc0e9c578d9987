"""make trn1-smoke DRY=1 for real: every job on the native backend, with one golden curve deliberately wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, environment
from tests.trainium.test_smoke import GOLDEN, not_passed, verdicts
from trainer.commands.smoke.curve import ON_CPU, against_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def command(*variables: str) -> list[str]:
    """What make would run last."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "trn1-smoke", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return shown.stdout.strip().splitlines()[-1].split()


def test_make_runs_the_script() -> None:
    assert command("DRY=1") == [".venv/bin/python", "scripts/smoke.py", "--dry"]
    assert command() == ["python", "scripts/smoke.py"]


@pytest.mark.long
def test_the_dry_run_fails_on_a_wrong_golden_and_on_nothing_else(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    for curve in golden["curves"].values():
        curve["loss"][-1] *= 1.01  # more than any precision may be away
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(golden))
    done = subprocess.run(
        [sys.executable, *command("DRY=1")[1:], "--root", str(tmp_path / "smoke"), "--golden", str(wrong)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    page = (tmp_path / "smoke" / "page.md").read_text()
    assert page in done.stdout
    assert done.returncode == 14, done.stdout + done.stderr
    lines = verdicts(page)
    assert not_passed(lines) == {"tiny-8 curve", "tiny-32 curve", "graphs of tiny-32"}
    assert lines["graphs of tiny-32"] == "skip"
    assert "nothing below is about Trainium" in page
    right = json.loads(GOLDEN.read_text())["curves"]
    for run in ("tiny-8", "tiny-32"):
        line = against_golden(run, tmp_path / "smoke" / run, right, ON_CPU)
        assert line.verdict == "pass", line
