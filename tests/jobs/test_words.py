"""Words of scripts/jobs.py as people write them wrong, and texts that would like to steer a terminal or a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.jobs import parser
from trainer.commands.jobs.act import act, registry_of
from trainer.commands.jobs.desk import RealDesk
from trainer.commands.jobs.load import load
from trainer.errors import ConfigError, ExitCode, RunError
from trainer.jobs.events import Occurrence, Stage
from trainer.jobs.ledger import Ledger

STEERS = "\x1b[2Jrude\n2026-11-30 02:30  published (exit 0): forged \udcff<b>"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a job that has one occurrence and two versions."""
    (tmp_path / "conf" / "job").mkdir(parents=True)
    (tmp_path / "conf" / "job" / "night.yaml").write_text("recipe: tiny\nschedule: {new_data: true}\n")
    (tmp_path / "file").write_text("hello")
    monkeypatch.chdir(tmp_path)
    time = "2026-11-30T02:30:00+00:00"
    due = {"type": "due", "trigger": "hand", "slot": time, "time": time, "by": f"a person, {STEERS}"}
    Ledger.at("jobs").create("night", "20261130t023000z-hand", due)
    registry = registry_of(load(Path("conf/job"))[0])
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        registry.add(version, tmp_path / version, {})
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert act(parser().parse_args(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("ls --count 0", "--count"),
        ("ls --count -3", "--count"),
        ("logs night --stage ../..", "--stage"),
        ("logs night --stage gate", "--stage"),
        ("show night 2027", "SLOT"),
        ("promote night ../versions/v1", "version"),
        ("evaluate nowhere.json", "PLAN"),
        ("export file", "PLAN"),
        ("export conf", "PLAN"),
        ("--ledger file ls", "--ledger"),
        ("--ledger file tick", "--ledger"),
        ("--ledger file/below run night", "--ledger"),
        ("--ledger / ls", "--ledger"),
        ("--ledger= ls", "--ledger"),
        ("--ledger s3://bucket ls", "--ledger"),
        ("--ledger gs://bucket/jobs ls", "--ledger"),
    ],
)
def test_a_word_that_cannot_be_meant_is_one_problem(here: Path, words: str, key: str) -> None:
    with pytest.raises(RunError) as raised:
        act(parser().parse_args(words.split()))
    (problem,) = raised.value.problems
    assert problem.key == key
    assert problem.remedy


def test_no_text_steers_a_terminal_or_a_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "promote", "night", "v1", "--because", STEERS)
    said(capsys, "promote", "night", "v2", "--because", STEERS)
    said(capsys, "rollback", "night", "--because", STEERS)
    for word in ("ls", "show", "why", "cancel", "why", "registry"):
        text = said(capsys, *([word] if word == "ls" else [word, "night"]))
        assert not [c for c in text if not c.isprintable() and c != "\n"], text
        assert not [line for line in text.splitlines() if line.startswith("2026-11-30 02:30  published")]
    said(capsys, "page", "page.html")
    page = (here / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert "<b>" not in page.replace("champion: <b>v1</b>", "")
    assert r"\x1b[2Jrude\n2026-11-30" in page


def test_a_bad_file_holds_up_no_other_job(here: Path) -> None:
    # No recipe of this name: what is open in the ledger ends at its first stage, and nothing is trained.
    (here / "conf" / "job" / "night.yaml").write_text('recipe: nowhere\nschedule: {cron: "0 2 * * *"}\n')
    (here / "conf" / "job" / "bad.yaml").write_text("recipe: tiny\n")
    with pytest.raises(RunError, match=r"bad\.yaml: schedule") as raised:
        act(parser().parse_args(["tick"]))
    assert raised.value.code == ExitCode.CONFIG
    assert list((here / "jobs" / "night" / "expanded").iterdir())
    assert not (here / "runs").exists()


def test_a_stage_that_was_never_submitted_is_cancelled(here: Path) -> None:
    (job,) = load(Path("conf/job"))
    waits = Occurrence("night", "20261130t023000z", stages={"prepare": Stage("failed", attempt=1)})
    RealDesk(registry_of).cancel(job, waits, "prepare")


def test_a_directory_that_is_a_file_is_told_as_that(here: Path) -> None:
    (here / "jobs" / "other").write_text("")
    with pytest.raises(RunError, match="move the file away"):
        Ledger.at("jobs").create("other", "20261130t023000z", {})
    with pytest.raises(ConfigError, match="--jobs"):
        act(parser().parse_args(["--jobs", "file", "ls"]))
