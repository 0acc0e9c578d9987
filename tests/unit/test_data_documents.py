"""Every kind of source gives the same texts; what cannot be read says so under its key."""

from __future__ import annotations

import gzip
import json
import sysconfig
from pathlib import Path

import pytest

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents, fingerprint, size_in_bytes
from trainer.errors import DataError, Problem

TEXTS = ["first\ndocument\n", "second: \u00e4\u00f6 \u4f60\u597d \U0001f600\ttab", "third\n\nwith a gap"]


def texts_of(**fields: object) -> list[str]:
    return list(documents(SourceConfig(**fields)))  # type: ignore[arg-type]


def problem_of(**fields: object) -> Problem:
    with pytest.raises(DataError) as caught:
        texts_of(**fields)
    (problem,) = caught.value.problems
    assert problem.rule
    assert problem.remedy
    return problem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same three documents as text files, JSONL, JSON, compressed JSONL, Parquet and a saved data set."""
    import datasets

    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "txt" / "deep" / "er").mkdir(parents=True)
    for name, text in zip(["a.txt", "deep/b.md", "deep/er/c"], TEXTS, strict=True):
        (tmp_path / "txt" / name).write_text(text, encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "x.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(tmp_path / "x.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data, "other": data.select([1])}).save_to_disk(tmp_path / "dict")
    (tmp_path / "plain").mkdir()
    data.to_json(tmp_path / "plain" / "train.jsonl")
    return tmp_path


def test_all_kinds_agree(folder: Path) -> None:
    for path in ["txt", "txt/**/*", "x.jsonl", "x.json", "z.jsonl.gz", "x.parquet"]:
        assert texts_of(kind="files", paths=[str(folder / path)]) == TEXTS, path
    for path in ["saved", "dict", "plain"]:
        assert texts_of(kind="huggingface", paths=[str(folder / path)]) == TEXTS, path
    assert texts_of(kind="huggingface", paths=[str(folder / "dict")], split="other") == [TEXTS[1]]


def test_home_and_order_and_duplicates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    given = ["~/txt/deep", "~/txt/a.txt", "~/txt/*/b.md"]
    assert texts_of(paths=given) == [TEXTS[1], TEXTS[2], TEXTS[0]]


def test_reading_leaves_the_home_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = folder / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    texts_of(paths=[str(folder / "txt"), str(folder / "x.jsonl"), str(folder / "x.parquet")])
    texts_of(kind="huggingface", paths=[str(folder / "plain")])
    assert not cache.exists()


def test_units(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n\n\nthree\n", encoding="utf-8")
    paths = [str(tmp_path / "t.txt")]
    assert texts_of(paths=paths, document_unit="line") == ["one", "two", "three"]
    assert [text.strip() for text in texts_of(paths=paths, document_unit="paragraph")] == ["one\ntwo", "three"]
    assert texts_of(paths=paths) == ["one\ntwo\n\n\nthree\n"]
    assert problem_of(paths=paths, document_unit="page").key == "data.sources[corpus].document_unit"


def test_odd_names_bad_bytes_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a[1]*.txt").write_bytes("ok \u00e9 end".encode())
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / ".hidden").write_text("no", encoding="utf-8")
    assert texts_of(paths=[str(tmp_path)]) == ["ok \u00e9 end"]
    assert texts_of(paths=[str(tmp_path / "a[1]*.txt")]) == ["ok \u00e9 end"]
    (tmp_path / "b.txt").write_bytes(b"ok \xff end")
    assert texts_of(paths=[str(tmp_path)]) == ["ok \u00e9 end"]
    assert "not UTF-8" in problem_of(paths=[str(tmp_path / "b.txt")]).rule


def test_python_stdlib() -> None:
    found = texts_of(kind="python_stdlib", name="std")
    root = Path(sysconfig.get_paths()["stdlib"])
    assert 1000 < len(found) < 3000
    assert (root / "pydoc_data" / "topics.py").read_text(encoding="utf-8") in found
    assert (size_in_bytes(SourceConfig(kind="python_stdlib")) or 0) > 20e6
    assert found[0] == (root / "__future__.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "key", "word"),
    [
        ({"paths": []}, "paths", "needs paths"),
        ({"paths": ["none/*.txt"]}, "paths", "matches no file"),
        ({"paths": [""]}, "paths", "it is empty"),
        ({"paths": ["x" * 5000]}, "paths", "File name too long"),
        ({"paths": ["~nobody.at.all/x"]}, "paths", "can be looked at"),
        ({"kind": "indexed", "paths": ["none"]}, "kind", "tokens"),
        ({"kind": "magic", "paths": ["none"]}, "kind", "unknown"),
        ({"paths": ["x.jsonl"], "text_field": "body"}, "text_field", "id, text"),
        ({"paths": ["x.parquet"], "text_field": "body"}, "text_field", "id, text"),
        ({"paths": ["x.parquet"], "text_field": "id"}, "text_field", "int"),
        ({"kind": "huggingface", "paths": ["saved"], "text_field": "body"}, "text_field", "id, text"),
        ({"kind": "huggingface", "paths": ["dict"], "split": "dev"}, "split", "no such split"),
        ({"kind": "huggingface", "paths": ["plain"], "split": "dev"}, "paths", "dev"),
    ],
)
def test_bad_inputs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], key: str, word: str
) -> None:
    monkeypatch.chdir(folder)
    problem = problem_of(name="mine", **fields)
    assert problem.key == f"data.sources[mine].{key}"
    assert word in problem.rule


def test_broken_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": ', encoding="utf-8")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    (tmp_path / "x.txt").write_bytes(b"")
    for name in ["x.jsonl", "x.parquet", "x.txt"]:
        assert problem_of(paths=[str(tmp_path / name)]).key == "data.sources[corpus].paths", name


def test_unknown_data_set_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    problem = problem_of(kind="huggingface", paths=["nobody/none-such"])
    assert problem.key == "data.sources[corpus].paths"
    assert "save_to_disk" in problem.remedy
    with pytest.raises(DataError):
        fingerprint(SourceConfig(kind="huggingface", paths=["nobody/none-such"]))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    for place in ["one", "two"]:
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("a", encoding="utf-8")
        (tmp_path / place / "b.txt").write_text("bc", encoding="utf-8")
    one = fingerprint(SourceConfig(name="x", weight=2.0, paths=[str(tmp_path / "one")]))
    assert one == fingerprint(SourceConfig(name="y", paths=[str(tmp_path / "two" / "*.txt")]))
    assert one != fingerprint(SourceConfig(paths=[str(tmp_path / "one")], document_unit="line"))
    (tmp_path / "two" / "a.txt").write_text("ab", encoding="utf-8")
    (tmp_path / "two" / "b.txt").write_text("c", encoding="utf-8")  # the same bytes, cut elsewhere
    assert one != fingerprint(SourceConfig(paths=[str(tmp_path / "two")]))
    (tmp_path / "one" / "b.txt").write_text("bd", encoding="utf-8")
    assert one != fingerprint(SourceConfig(paths=[str(tmp_path / "one")]))
