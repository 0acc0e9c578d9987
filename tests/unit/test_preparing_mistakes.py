"""Mistakes of those who prepare: an output that cannot be, and what was complete and is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.preparing.preparation import Options, Prepared, prepare
from trainer.data.tokenizer import train_bpe
from trainer.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Two sources of a few texts."""
    texts = [f"text {number} of {number * 7919 % 101}" for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "small").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "small" / f"{number:03}.txt").write_text(text)
    (tmp_path / "tokenizer").mkdir()
    train_bpe(iter(texts), 300).save(tmp_path / "tokenizer" / "tokenizer.json")
    return DataConfig(
        sources=[
            SourceConfig(name="rows", paths=[str(tmp_path / "rows.jsonl")]),
            SourceConfig(name="small", paths=[str(tmp_path / "small")]),
        ],
        tokenizer=TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer")),
    )


def run(config: DataConfig, output: Path) -> list[Prepared]:
    return prepare(config, Options(output, 1), lambda line: None)


@pytest.mark.parametrize(("pattern", "output"), [("", ""), ("", "deep/out"), ("*", "deep/out"), ("*", "out")])
def test_an_output_inside_what_is_read_is_refused(
    config: DataConfig, tmp_path: Path, pattern: str, output: str
) -> None:
    (tmp_path / "small" / "deep").mkdir()
    source = replace(config.sources[1], paths=[str(tmp_path / "small" / pattern)])
    with pytest.raises(DataError, match=r"data.sources.0.paths[\s\S]*does not hold --output"):
        run(replace(config, sources=[source]), tmp_path / "small" / output)
    assert not list((tmp_path / "small").rglob("tokenizer*"))


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_that_is_a_file_is_refused(config: DataConfig, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"is a directory[\s\S]*another --output"):
        run(config, tmp_path / output)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("rows/train-00000.bin", None, "train-00000.bin is not there[\\s\\S]*the same command"),
        ("rows/train-00000.idx", b"cut", "train-00000.idx is not there"),
        ("rows/inputs.jsonl", b'{"path": ', "rows[\\s\\S]*has left[\\s\\S]*remove it"),
        ("rows/inputs.jsonl", b"3\n", "rows[\\s\\S]*has left[\\s\\S]*remove it"),
        ("tokenizer/tokenizer.json", b"", "not there, or damaged[\\s\\S]*bring that directory back"),
    ],
)
def test_what_was_complete_and_is_damaged_is_named(
    config: DataConfig, tmp_path: Path, file: str, data: bytes | None, message: str
) -> None:
    output = tmp_path / "out"
    config = replace(config, sources=config.sources[:1])
    run(config, output)
    (output / file).unlink() if data is None else (output / file).write_bytes(data)
    with pytest.raises(DataError, match=message):
        run(config, output)


def test_figures_that_a_manifest_lacks_are_named(config: DataConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "out")
    manifest = tmp_path / "out" / "rows" / "manifest.json"
    value = json.loads(manifest.read_text())
    del value["figures"]["train"]
    manifest.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"its figures[\s\S]*remove it"):
        run(config, tmp_path / "out")
