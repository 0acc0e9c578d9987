"""scripts/import_hf.py: what it makes is there whole or not at all, and what it refuses is one problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import directories
from trainer.commands.import_hf import import_directory
from trainer.errors import ConfigError
from trainer.pretrained.source import open_source


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directories.write(Path("model"))
    directories.write_tokenizer(Path("model"), 40)


def names() -> list[str]:
    return sorted(map(str, Path().rglob("*")))


def touch(path: str) -> str:
    Path(path).touch()
    return path


def checkpoint(path: str) -> str:
    """Something inside an import that is there, or beside its checkpoint."""
    list(import_directory("model", "there"))
    return f"there/{path}"


REFUSED: dict[str, tuple[Callable[[], tuple[str, str]], str, str]] = {
    "no such directory": (lambda: ("nowhere", "made"), "DIRECTORY", "does not exist"),
    "an unknown home": (lambda: ("~nobody-of-this-name/model", "made"), "DIRECTORY", "does not exist"),
    "a name too long": (lambda: ("a" * 300, "made"), "DIRECTORY", "can be read"),
    "into a file": (lambda: ("model", touch("file")), "CHECKPOINTS", "a file is there"),
    "below a file": (lambda: ("model", touch("file") + "/made"), "CHECKPOINTS", "Not a directory"),
    "into the source": (lambda: ("model", "model"), "CHECKPOINTS", "it holds config.json"),
    "into a checkpoint": (lambda: ("model", checkpoint("step-00000000/made")), "CHECKPOINTS", "inside a checkpoint"),
    "among checkpoints": (lambda: ("model", checkpoint("made")), "CHECKPOINTS", "among checkpoints"),
    "into nobody's home": (lambda: ("model", "~nobody-of-this-name/made"), "CHECKPOINTS", "nobody's"),
    "into a name too long": (lambda: ("model", "a" * 300), "CHECKPOINTS", "File name too long"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_command_is_one_problem_and_leaves_nothing_behind(case: str) -> None:
    make, key, words = REFUSED[case]
    given, target = make()
    before = names()
    with pytest.raises(ConfigError) as raised:
        list(import_directory(given, target))
    (problem,) = raised.value.problems
    assert problem.key == key
    assert words in problem.rule
    assert problem.remedy
    assert names() == before


def test_what_a_kill_left_is_cleared_away() -> None:
    leftover = Path(".made.exporting/.saving-step-00000000/model")
    leftover.mkdir(parents=True)
    list(import_directory("model", "made"))
    assert not leftover.exists()
    assert open_source("made").imported


@pytest.mark.parametrize("unreadable", ["tokenizer.json", "generation_config.json"])
def test_a_file_that_cannot_be_read_leaves_nothing(unreadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model/generation_config.json").write_text("{}")
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.name == unreadable:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    before = names()
    with pytest.raises(ConfigError, match=rf"{unreadable} .*Permission denied"):
        list(import_directory("model", "made"))
    assert names() == before


def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.write.write_hashed", fails)
    before = names()
    with pytest.raises(ConfigError, match="No space left on device"):
        list(import_directory("model", "made"))
    assert names() == before
