"""Documents that cannot be used: counted with their places, told at every start, or the end of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
import pytest

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data import tokenizer as tokenizers
from trainer.data.corpus import prepare_corpus
from trainer.data.documents import documents
from trainer.data.readers import delimited, streams, text, values
from trainer.data.skipped import Policy
from trainer.errors import DataError, Problem


class Case(NamedTuple):
    """A file of good texts and one bad document, by what is wrong with it."""

    name: str
    content: bytes
    reason: str
    place: str
    good: list[str]
    unit: str = "line"


GOOD = b"one\ntwo\n"
JSON = b'{"text": "one"}\n'
LONG = b"y" * 200
CASES = {
    "encoding": Case("x.txt", GOOD + b"caf\xe9\n", "not UTF-8", "x.txt, line 3", ["one", "two"]),
    "encoding of two": Case("x.txt", b"a\n\n\xff b\n\nc", "not UTF-8", "x.txt, line 3", ["a", "c"], "paragraph"),
    "NUL": Case("x.txt", GOOD * 2000 + b"\0\n", "a NUL byte in text", "x.txt, line 4,001", ["one", "two"] * 2000),
    "long line": Case("x.txt", GOOD + LONG + b"\nend\n", "longer than 32 MiB", "x.txt, line 3", ["one", "two", "end"]),
    "long paragraph": Case("x.txt", b"a\n\n" + b"line\n" * 50 + b"\nb", "longer than 32 MiB", "x.txt, line 3",
                           ["a", "b"], "paragraph"),
    "broken line": Case("x.jsonl", JSON + b'{"text": \n' + JSON, "broken JSON", "x.jsonl, line 2", ["one"] * 2),
    "no object": Case("x.jsonl", JSON + b"[1]\n", "no object", "x.jsonl, line 2", ["one"]),
    "missing field": Case("x.jsonl", JSON + b'\n{"body": "x"}', "without the text field", "x.jsonl, line 3", ["one"]),
    "null": Case("x.jsonl", b'{"text": null}\n' + JSON, "null where text should be", "x.jsonl, line 1", ["one"]),
    "number": Case("x.jsonl", JSON + b'{"text": 7}', "no text but another type", "x.jsonl, line 2", ["one"]),
    "empty": Case("x.jsonl", JSON + b'{"text": ""}', "empty", "x.jsonl, line 2", ["one"]),
    "half": Case("x.jsonl", JSON + b'{"text": "\\ud800"}', "half of a surrogate pair", "x.jsonl, line 2", ["one"]),
    "encoding of JSON": Case("x.jsonl", JSON + b'{"text": "\xff"}', "not UTF-8", "x.jsonl, line 2", ["one"]),
    "long JSON": Case("x.jsonl", JSON + b'{"text": "' + LONG + b'"}\n' + JSON, "longer than 32 MiB", "x.jsonl, line 2",
                      ["one"] * 2),
    "element": Case("x.json", b'[{"text": "one"}, {"text": 1}]', "no text but another type", "x.json, row 1", ["one"]),
    "cells": Case("x.csv", b"text\none\na,b\nc\n", "more cells than columns", "x.csv, line 3", ["one", "c"]),
    "short row": Case("x.csv", b"id,text\n1,one\n2\n", "without the text field", "x.csv, line 3", ["one"]),
    "quotes": Case("x.csv", b'text\none\n"a"b\nc\n', "broken quotes", "x.csv, line 3", ["one", "c"]),
    "open quote": Case("x.csv", b'text\none\n"a\nc\n', "broken quotes", "x.csv, line 3", ["one"]),
    "long": Case("x.csv", b'text\n"a' + LONG + b'\n""b\nc"\none\n', "longer than 32 MiB", "x.csv, line 2", ["one"]),
    "long quoted lines": Case("x.csv", b'text\n"' + b"a\n" * 90 + b'"\none\n', "longer than 32 MiB", "x.csv, line 2",
                              ["one"]),
    "encoding of CSV": Case("x.tsv", b"id\ttext\n1\tone\n2\t\xff\n", "not UTF-8", "x.tsv, line 3", ["one"]),
    "NUL in CSV": Case("x.csv", b"text\n" + b"one\n" * 3000 + b"\0a\n", "a NUL byte in text", "x.csv, line 3,002",
                       ["one"] * 3000),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 150 bytes and blocks of 16 stand for 32 MiB and one."""
    for module in (streams, text, delimited, values):
        monkeypatch.setattr(module, "LIMIT", 150)
    monkeypatch.setattr(streams, "BLOCK", 16 << 10)


def read(source: SourceConfig, policy: Policy) -> list[str]:
    return list(documents(source, policy))


@pytest.mark.parametrize("name", CASES)
def test_skip_and_stop(tmp_path: Path, small: None, name: str) -> None:
    case = CASES[name]
    file = tmp_path / case.name
    file.write_bytes(case.content)
    source = SourceConfig(paths=[str(file)], document_unit=case.unit)
    policy = Policy("skip")
    assert read(source, policy) == case.good
    counts = {words: (count.number, count.places) for words, count in policy.skipped.bad.items()}
    assert counts == {case.reason: (1, [case.place])}
    with pytest.raises(DataError) as caught:
        read(source, Policy("stop"))
    (problem,) = caught.value.problems
    assert problem.value == str(tmp_path / case.place)
    assert case.reason in problem.rule
    assert "data.bad_documents=skip" in problem.remedy
    assert ("cut it into shorter ones" in problem.remedy) == (case.reason == "longer than 32 MiB")


def test_borders_do_not_matter(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with blocks of a few bytes, but for where a NUL makes a file binary and JSON's shape is told."""
    for block in (1, 5, 64):
        monkeypatch.setattr(streams, "BLOCK", block)
        for name, case in CASES.items():
            (tmp_path / case.name).write_bytes(case.content)
            policy = Policy("skip")
            source = SourceConfig(paths=[str(tmp_path / case.name)], document_unit=case.unit)
            assert read(source, policy) == case.good, (name, block)
            assert list(policy.skipped.bad) == [case.reason], (name, block)


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pyarrow.array([b"a", b"\xff", None, b"", b"x" * 200], pyarrow.binary())
    text_column = pyarrow.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    pyarrow.parquet.write_table(pyarrow.table({"text": text_column}), tmp_path / "x.parquet")
    monkeypatch.setattr("trainer.data.readers.columns.LIMIT", 150)
    policy = Policy("skip")
    assert read(SourceConfig(paths=[str(tmp_path)]), policy) == ["a"]
    assert {words: count.places for words, count in policy.skipped.bad.items()} == {
        "not UTF-8": ["x.parquet, row 1"],
        "null where text should be": ["x.parquet, row 2"],
        "empty": ["x.parquet, row 3"],
        "longer than 32 MiB": ["x.parquet, row 4"],
    }


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [(b'{"text": 1}\n{"text": null}', "text_field", "2 documents"), (b"{\n{", "paths", "x.jsonl, line 1")],
)
def test_nothing_but_bad_documents(tmp_path: Path, content: bytes, key: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(SourceConfig(paths=[str(tmp_path)]), Policy("skip"))
    (problem,) = caught.value.problems
    assert problem.key == f"data.sources[corpus].{key}"
    assert words in problem.rule


@pytest.mark.parametrize("content", [b"\x89PNG\0\0", "text".encode("utf-16"), "\u4f60".encode("utf-16-be")])
def test_binary_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_text("good", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xfe\xff" + content if content == b"\x4f\x60" else content)
    with pytest.raises(DataError, match="binary, or UTF-16"):
        read(SourceConfig(paths=[str(tmp_path)]), Policy("skip"))


def config_for(tmp_path: Path) -> DataConfig:
    lines = [json.dumps({"text": f"text {index} " * 20}) for index in range(40)]
    lines[3:3] = ['{"text": ', '{"text": null}', "{", "[", "{{"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "in" / "b.txt").write_text('{"text": "x"}\n{"text": "y"}\n', encoding="utf-8")
    return DataConfig(
        sources=[SourceConfig(name="web", paths=[str(tmp_path / "in")])],
        tokenizer=TokenizerConfig(vocab=270),
        seq_len=32,
        heldout_fraction=0.2,
        cache_dir=str(tmp_path / "cache"),
    )


def test_told_when_prepared_and_at_every_start(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    starts: list[list[str]] = []
    for _ in range(2):
        said: list[str] = []
        prepare_corpus(config, 300, said.append)
        starts.append([line for line in said if line.startswith("  web: ")])
    assert starts[0] == starts[1]
    assert sorted(starts[0])[1:] == [
        "  web: skipped 1 document, null where text should be: a.jsonl, line 5",
        "  web: skipped 4 documents, broken JSON: a.jsonl, line 4; a.jsonl, line 6; a.jsonl, line 7; ...",
    ]
    assert "b.txt" in sorted(starts[0])[0]
    assert "format: jsonl" in sorted(starts[0])[0]
    (figures,) = (tmp_path / "cache").glob("tokens-*/figures.json")
    assert json.loads(figures.read_text())["skipped"]["bad"]["broken JSON"]["number"] == 4


@pytest.mark.parametrize("prepared", [True, False])
def test_stop_from_the_cache_too(tmp_path: Path, prepared: bool) -> None:
    config = config_for(tmp_path)
    if prepared:
        prepare_corpus(config, 300)
    with pytest.raises(DataError) as caught:
        prepare_corpus(replace(config, bad_documents="stop"), 300)
    (problem,) = caught.value.problems
    assert problem.key == "data.sources.0.paths"
    assert "a.jsonl, line 4" in str(problem.value)


def test_figures_of_an_older_cache(tmp_path: Path) -> None:
    from trainer.data.tokenizing import SourceFigures

    part = {"documents": 1, "tokens": 2, "bytes": 3}
    old = {"train": part, "heldout": part, "reference_bytes": 3, "zlib_bytes": 4, "xz_bytes": 5}
    (tmp_path / "figures.json").write_text(json.dumps(old), encoding="utf-8")
    assert list(SourceFigures.read(tmp_path).skipped.lines("x")) == []


def files_in(root: Path, names: str) -> Path:
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.table({"text": [name]}), root / name)
        else:
            (root / name).write_text('{"text": "x"}\n', encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("files", "README.md data/train-0.parquet", "README.md beside train-0.parquet"),
        ("files", "data/train-0.parquet data/test-0.parquet", "splits of a data set"),
        ("files", "train.jsonl validation.jsonl.gz", "splits of a data set"),
        ("huggingface", "a.jsonl b.txt c.txt", "a.jsonl and b.txt"),
        ("huggingface", "a.csv b.tsv", "a.csv and b.tsv"),
    ],
)
def test_directories_that_are_data_sets(tmp_path: Path, kind: str, names: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(SourceConfig(kind=kind, paths=[str(files_in(tmp_path, names))]), Policy())
    (problem,) = caught.value.problems
    assert words in problem.rule
    assert "kind: " in problem.remedy


def test_directories_that_are_not(tmp_path: Path) -> None:
    source = files_in(tmp_path / "code", "README.md train.py test.py")
    assert len(read(SourceConfig(paths=[str(source)]), Policy())) == 3
    data = files_in(tmp_path / "data", "README.md train-0.parquet test-0.parquet")
    assert read(SourceConfig(paths=[f"{data}/*.parquet"]), Policy()) == ["test-0.parquet", "train-0.parquet"]
    assert read(SourceConfig(kind="huggingface", paths=[str(data)]), Policy()) == ["train-0.parquet"]


def test_a_full_disk_while_the_tokenizer_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full stands for the disk: what a write there raises is the operating system's own error."""
    save: Callable[[tokenizers.Tokenizer, Path], None] = tokenizers.Tokenizer.save
    monkeypatch.setattr(tokenizers.Tokenizer, "save", lambda self, path: save(self, Path("/dev/full")))
    with pytest.raises(DataError) as caught:
        prepare_corpus(config_for(tmp_path), 300)
    (problem,) = caught.value.problems
    assert isinstance(problem, Problem)
    assert problem.key == "data.cache_dir"
    assert "No space left" in problem.rule
