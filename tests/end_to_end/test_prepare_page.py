"""Every command of docs/prepare.md, and mistakes in such commands."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.end_to_end.test_readme import clone, commands
from trainer.commands.prepare import table
from trainer.data.preparing.preparation import Prepared
from trainer.data.tokenizing import is_heldout

__all__ = ["clone"]
pytestmark = pytest.mark.slow
PAGE = commands("docs/prepare.md")


def prepare(cwd: Path, *words: str) -> tuple[int, str]:
    script = str(harness.ROOT / "scripts" / "prepare.py")
    environment = harness.environment() | {"PYTHONPATH": str(harness.ROOT)}
    done = subprocess.run(
        [sys.executable, script, *words], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", [PAGE[0], pytest.param(PAGE[1], marks=pytest.mark.long)])
def test_command_of_the_page(clone: Path, command: str) -> None:
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "scripts/prepare.py")
    code, output = prepare(clone, *words)
    assert code == 0, output
    directory = clone / words[words.index("--output") + 1]
    prepared = sorted(path.name for path in directory.iterdir() if path.name != "tokenizer")
    assert prepared == (["README", "docs"] if command == PAGE[0] else ["notes", "py"])
    for name in prepared:
        manifest = json.loads((directory / name / "manifest.json").read_text())
        assert f"{{name: {name}, kind: prepared, paths: [{directory / name}]}}" in output
        figures = manifest["figures"]
        assert f"{figures['train']['documents'] + figures['heldout']['documents']:,}" in output
    code, output = prepare(clone, *words)
    assert code == 0
    assert "is complete: nothing to do" in output


def test_the_page_shows_two_commands() -> None:
    assert len(PAGE) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--output = None"),
        (["--output", "s3://bucket/x"], "remote ones are not written"),
        (["--output", "~nobody-of-this-name/x"], "the home of a user"),
        (["--output", "x", "--processes", "0"], "--processes = 0"),
        (["--output", "x", "--dedup", "most"], "invalid choice: 'most'"),
        (["--output", "x", "--processes", "many"], "invalid int value"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], message: str) -> None:
    code, output = prepare(tmp_path, "--source", "x.txt", *words)
    assert (code, message in output) == (3, True), output
    assert not list(tmp_path.iterdir())


def test_a_source_whose_name_has_quotes_and_commas(tmp_path: Path) -> None:
    (tmp_path / "it's, {odd}.txt").write_text("some text\n" * 200)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "it's, {odd}.md").write_text("more text\n" * 200)
    paths = ["--source", "it's, {odd}.txt", "--source", "other/it's, {odd}.md"]
    code, output = prepare(tmp_path, *paths, "--output", "out", "data.heldout_fraction=0")
    assert code == 0, output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"it's, {odd}", "it's, {odd}-2", "tokenizer"}


def test_the_table() -> None:
    part = {"documents": 1200, "tokens": 3000, "bytes": 9000}
    figures = {"train": part, "heldout": {"documents": 2, "tokens": 10, "bytes": 30}, "reference_bytes": 0}
    figures |= {"zlib_bytes": 0, "xz_bytes": 0, "unknown": 301}
    skipped = {"bad": {"empty": {"number": 2, "places": ["x, line 1", "x, line 2"]}}, "asides": {}}
    manifest = {"figures": figures | {"skipped": skipped}, "dedup": {"removed": 7}}
    rows = list(table([Prepared("web", Path("x"), manifest, True)]))
    assert rows[1].split() == ["web", "1,202", "3,010", "2", "3.00", "2", "7"]
    assert rows[2] == "  web: skipped 2 documents, empty: x, line 1; x, line 2"
    assert rows[3] == "  web: 10.000% of the tokens are unknown: their text is lost to the model"


def test_a_source_that_is_held_out_as_a_whole_is_told(tmp_path: Path) -> None:
    text = next(text for number in range(1000) if is_heldout((text := f"text {number}\n" * 200).encode(), 0.5))
    (tmp_path / "one.txt").write_text(text)
    code, output = prepare(tmp_path, "--source", "one.txt", "--output", "out", "data.heldout_fraction=0.5")
    assert code == 0, output
    assert "one: all documents are held out" in output
