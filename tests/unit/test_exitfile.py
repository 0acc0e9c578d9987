"""exit.json: what it says, where it goes, and whose it is."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError, Problem
from trainer.run.exit_json import forget_exit, guess_directory, this_process, write_crash, write_exit


@pytest.mark.parametrize(
    ("overrides", "directory"),
    [
        (["recipe=tiny", "optim.lrr=3"], "runs/tiny"),
        (["recipe=tiny", "run.name=a:b c"], "runs/a:b c"),
        (["+run.name='n'", "run.root=x"], "x/n"),
        (["run.name=n", "run.root='~/x'"], "home/x/n"),
        (["recipe=tiny", "run.name=../../etc"], None),
        (["recipe=tiny", "run.name=a/b"], None),
        (["optim.lr=1"], None),
        (["recipe=tiny", "backend=fake"], None),
    ],
)
def test_the_directory_is_guessed_and_never_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], directory: str | None
) -> None:
    """Of a run that there is: a command line that was refused makes no directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert guess_directory(overrides) is None
    for name in ("runs/tiny", "runs/a:b c", "x/n", "home/x/n", "runs/a/b", "etc"):
        (tmp_path / name).mkdir(parents=True)
    found = guess_directory(overrides)
    assert (None if found is None else found.absolute()) == (None if directory is None else tmp_path / directory)


def test_it_says_code_cause_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000012").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000007").mkdir()
    error = ConfigError([Problem("optim.lr", float("nan"), "finite", "set it"), Problem("api_key", "k", "r", "m")])
    write_exit(tmp_path, 3, 0, error.title, error)
    record = json.loads((tmp_path / "exit.json").read_text())
    assert (record["code"], record["name"], record["rank"]) == (3, "CONFIG", 0)
    assert record["newest_checkpoint_step"] == 12
    assert record["problems"][0] == {"key": "optim.lr", "value": "nan", "rule": "finite", "remedy": "set it"}
    forget_exit(tmp_path)
    assert not (tmp_path / "exit.json").exists()


def test_a_live_runs_file_is_not_touched(tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_exit(tmp_path, 3, 0, "refused")
        assert not (tmp_path / "exit.json").exists()
        assert json.loads((tmp_path / "exit.refused.json").read_text())["title"] == "refused"
        write_exit(tmp_path, 4, 3, "rank 3 of the live launch itself")
        assert json.loads((tmp_path / "exit.json").read_text())["rank"] == 3


def test_a_process_that_leaves_while_it_holds_the_run_writes_its_own_exit(tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(this_process())
        lock.flush()
        write_exit(tmp_path, 10, 0, "interrupted at once")
    assert json.loads((tmp_path / "exit.json").read_text())["code"] == 10
    assert not (tmp_path / "exit.refused.json").exists()


def test_a_crash_that_follows_from_a_cause_does_not_hide_it(tmp_path: Path) -> None:
    write_crash(tmp_path, 0, RuntimeError("first"))
    write_crash(tmp_path, 1, RuntimeError("second"))
    record = json.loads((tmp_path / "exit.json").read_text())
    assert (record["code"], record["name"], record["title"]) == (1, "CRASH", "RuntimeError: first")


def test_a_directory_that_cannot_be_written_is_no_second_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_exit(tmp_path / "file" / "run", 3, 0, "no place")
    write_exit(None, 3, 0, "no name")
