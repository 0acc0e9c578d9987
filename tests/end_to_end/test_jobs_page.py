"""docs/jobs.md from its first command to its last, as they are written: the job of the page, with a small model."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from tests import harness
from tests.end_to_end.test_finetune import MODEL, QUESTIONS, SHORT, write_model
from tests.end_to_end.test_model_pages import run

pytestmark = [pytest.mark.slow, pytest.mark.long]  # a page of the docs
PAGE = (harness.ROOT / "docs" / "jobs.md").read_text()
COMMANDS = re.findall(r"^ *(python scripts/jobs\.py .*)$", PAGE, re.MULTILINE)
CHAMPION = re.findall(r"`(registry/\S+/model)`", PAGE)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What the page takes for granted: the model, conversations and a frozen set. Only sizes are other than there."""
    (tmp_path / "scripts").symlink_to(harness.ROOT / "scripts")
    write_model(tmp_path / MODEL)
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "recipe:" in text]
    job = yaml.safe_load(block)
    job["overrides"] += [f"model.init_from={MODEL}", *SHORT]
    (tmp_path / "conf" / "job").mkdir(parents=True)
    (tmp_path / "conf" / "job" / "nightly.yaml").write_text(yaml.safe_dump(job))
    converse(tmp_path / "data" / "frozen.jsonl", QUESTIONS[-10:])
    converse(tmp_path / "data" / "chat" / "monday.jsonl", QUESTIONS[:70])
    return tmp_path


def converse(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Questions and answers as conversations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[{"role": "user", "content": one}, {"role": "assistant", "content": two}] for one, two in pairs]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))


def test_the_page(workspace: Path) -> None:
    said: dict[str, str] = {}
    for command in COMMANDS:
        if " rollback " in command:
            second_night(workspace)
        if " run " in command:
            assert not any((workspace / kept).exists() for kept in ("jobs", "runs", "registry"))
        with on_the_volume(workspace) if "kubernetes" in command else nullcontext():
            said[command.split("jobs.py ")[1]] = run(workspace, command)
    assert "nothing was written" in said["check nightly"]
    assert "nightly 2" in said["run nightly"]
    assert said["run nightly"].rstrip().endswith("notify done") or "is champion" in said["run nightly"]
    assert len(re.findall(r"^  2.* published ", said["ls"], re.MULTILINE)) == 1
    assert "is champion" in said["why nightly"]
    assert "begins anew" in said["logs nightly --stage train"]
    (row,) = said["registry nightly"].splitlines()
    first = row.split()[0]
    assert row.split()[1] == "champion"
    page = (workspace / "jobs.html").read_text()
    assert "nightly" in page
    assert "published" in page
    (link,) = CHAMPION
    assert (workspace / link).resolve().parent.name == first  # rolled back to what was there before the second night
    assert (workspace / link / "config.json").is_file()
    assert "is withdrawn" in said['rollback nightly --because "it is rude"']
    the_crontab_ticks(workspace, said["timer crontab"])


@contextmanager
def on_the_volume(workspace: Path) -> Iterator[None]:
    """The job as the page wants it for a cluster, and as it was afterwards."""
    path = workspace / "conf" / "job" / "nightly.yaml"
    before = path.read_text()
    job = yaml.safe_load(before.replace("data/", "runs/data/"))
    job["publish"]["registry"] = "runs/registry"
    path.write_text(yaml.safe_dump(job))
    yield
    path.write_text(before)


def second_night(workspace: Path) -> None:
    """More conversations of the kind that the first have been: better, and so published."""
    converse(workspace / "data" / "chat" / "tuesday.jsonl", QUESTIONS[70:150])
    night = run(workspace, "python scripts/jobs.py run nightly")
    assert "is champion" in night, night
    assert "the adapter of" in run(workspace, "python scripts/jobs.py why nightly")


def the_crontab_ticks(workspace: Path, said: str) -> None:
    """What is printed for cron does, as cron would call it, what it is there for."""
    (line,) = [line for line in said.splitlines() if not line.startswith("#")]
    command = line.removeprefix("* * * * * ")
    assert command != line
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(workspace), "PYTHONPATH": str(harness.ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False), done.stderr
    assert list((workspace / "jobs" / "nightly" / "expanded").iterdir()), "a tick has looked at the schedule"
