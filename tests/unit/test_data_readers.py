"""Each format gives what an independent reader gives: json, csv, pandas, pyarrow, datasets; packed or not."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pandas
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents
from trainer.data.readers import streams
from trainer.errors import DataError, Problem

TEXTS = [
    "plain",
    "two\nlines, and a comma",
    'a "quoted" word\tand a tab',
    "caf\u00e9 \u4f60\u597d \U0001f600\u2028 \u0085",
    "crlf\r\nkept",
    "x" * 300_000,
]
ROWS = [{"id": index, "text": text, "meta": None if index % 2 else str(index)} for index, text in enumerate(TEXTS)]


def texts_of(*paths: Path, **fields: object) -> list[str]:
    return list(documents(SourceConfig(paths=[str(path) for path in paths], **fields)))  # type: ignore[arg-type]


def problem_of(*paths: Path, **fields: object) -> Problem:
    with pytest.raises(DataError) as caught:
        texts_of(*paths, **fields)
    (problem,) = caught.value.problems
    return problem


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd,
}  # fmt: skip


def json_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def delimited(delimiter: str) -> bytes:
    target = io.StringIO(newline="")
    writer = csv.DictWriter(target, ["id", "text", "meta"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return target.getvalue().encode()


LINE_FORMATS: dict[str, Callable[[], bytes]] = {
    **dict.fromkeys(["jsonl", "ndjson", "jsonlines", "jl", "JSONL", "json"], json_lines),
    "csv": lambda: delimited(","),
    "tsv": lambda: delimited("\t"),
}


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("suffix", LINE_FORMATS)
def test_rows_of_lines(tmp_path: Path, suffix: str, compression: str) -> None:
    content = LINE_FORMATS[suffix]()
    file = tmp_path / f"x.{suffix}{compression}"
    file.write_bytes(PACK[compression](content))
    if suffix in ("csv", "tsv"):
        frame = pandas.read_csv(io.BytesIO(content), sep="," if suffix == "csv" else "\t")
        expected = frame["text"].tolist()
    else:
        expected = [json.loads(line)["text"] for line in content.decode().split("\n") if line]
    assert texts_of(file) == expected == TEXTS


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("unit", ["file", "paragraph", "line"])
def test_text(tmp_path: Path, unit: str, compression: str) -> None:
    content = "one\r\ntwo\rthree\n\n\nf\u00fcnf \u2028 six\n \n\n\n\nend".encode()
    file = tmp_path / f"x.md{compression}"
    file.write_bytes(PACK[compression](content))
    whole = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
    expected = {"file": [whole], "paragraph": whole.split("\n\n"), "line": whole.split("\n")}[unit]
    assert texts_of(file, document_unit=unit) == [text for text in expected if text]


@pytest.mark.parametrize("unit", ["file", "paragraph", "line"])
@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_borders_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, unit: str) -> None:
    """Separators, newlines and characters that a border of two blocks cuts."""
    monkeypatch.setattr(streams, "BLOCK", block)
    content = "\u4f60\r\n\r\n\r\n\r\u597d\n\n\nx\r\r\r".encode()
    file = tmp_path / "x.txt"
    file.write_bytes(content)
    whole = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
    expected = {"file": [whole], "paragraph": whole.split("\n\n"), "line": whole.split("\n")}[unit]
    assert texts_of(file, document_unit=unit) == [text for text in expected if text]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\ufeff" + json.dumps(ROWS),
        "".join(json.dumps(row, indent=1) + "\n" for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
        "\r\n\r\n".join(json.dumps(row) for row in ROWS),
        "\ufeff" + json_lines().decode(),
        json.dumps(TEXTS),
    ],
)
def test_json_in_other_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    for name in ("x.json", "x.jsonl"):
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        assert texts_of(tmp_path / name) == TEXTS
    monkeypatch.setattr(streams, "BLOCK", 1 << 10)
    if not content.startswith("{\n"):  # objects over several lines are known by the first block
        assert texts_of(tmp_path / "x.json") == TEXTS


def write_tables(folder: Path) -> list[Path]:
    """The rows as Parquet in several row groups and string types, and as Arrow, both ways."""
    plain = pyarrow.Table.from_pylist(ROWS)
    large = plain.set_column(1, "text", plain["text"].cast(pyarrow.large_string()))
    packed = plain.set_column(1, "text", plain["text"].dictionary_encode())
    view = plain.set_column(1, "text", plain["text"].cast(pyarrow.string_view()))
    for name, table in [("plain", plain), ("large", large), ("packed", packed)]:
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=4, compression="zstd")
    for name, table in [("plain", plain), ("packed", packed), ("view", view)]:
        for kind, begin in [("file", pyarrow.ipc.new_file), ("stream", pyarrow.ipc.new_stream)]:
            with begin(str(folder / f"{name}-{kind}.arrow"), table.schema) as writer:
                writer.write_table(table, max_chunksize=4)
    return sorted(folder.iterdir())


def test_tables(tmp_path: Path) -> None:
    files = write_tables(tmp_path)
    assert len(files) == 9
    for file in files:
        if file.suffix == ".parquet":
            assert pyarrow.parquet.read_table(file)["text"].to_pylist() == TEXTS
        assert texts_of(file) == TEXTS, file


def test_arrow_of_the_datasets_library(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    assert texts_of(file) == datasets.load_from_disk(str(tmp_path / "saved"))["text"][:] == TEXTS


def test_only_the_wanted_field_matters(tmp_path: Path) -> None:
    """Types that change, columns that come and go, and bytes that are no text in another field."""
    lines = [b'{"text": "a", "meta": null}', b'{"meta": "x", "text": "b"}', b'{"text": "c", "more": [1, {"y": 2}]}',
             b'{"text": "2020-01-01", "meta": 7}', b'{"text": "d", "meta": "\xff\xfe"}']  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl").write_text('{"text": "e", "meta": {"z": 1}}\n', encoding="utf-8")
    (tmp_path / "c.csv").write_bytes(b"meta,text\n1,f\n\xff,g\n")
    (tmp_path / "d.csv").write_bytes(b"text\nh\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["i"], "meta": [1]}), tmp_path / "e.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"meta": [["x"]], "text": ["j"]}), tmp_path / "f.parquet")
    assert texts_of(tmp_path) == ["a", "b", "c", "2020-01-01", "d", "e", "i", "j", "f", "g", "h"]


def test_parts_without_rows(tmp_path: Path) -> None:
    schema = pyarrow.schema({"text": pyarrow.string()})
    empty, good = schema.empty_table(), pyarrow.table({"text": ["a", "b"]})
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        writer.write_table(empty)
        writer.write_table(good)
    pyarrow.parquet.write_table(empty, tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("text\n", encoding="utf-8")
    assert texts_of(tmp_path) == ["a", "b"]
    assert "holds no text" in problem_of(tmp_path / "b.parquet").rule


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "arrow"])
def test_a_part_without_the_column_is_named(tmp_path: Path, suffix: str) -> None:
    for name, field in [("a", "text"), ("b", "body")]:
        table, file = pyarrow.table({field: ["x"], "id": ["1"]}), tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            pyarrow.parquet.write_table(table, file)
        elif suffix == "arrow":
            with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
                writer.write_table(table)
        elif suffix == "csv":
            table.to_pandas().to_csv(file, index=False)
        else:
            table.to_pandas().to_json(file, orient="records", lines=True)
    problem = problem_of(tmp_path)
    assert problem.key == "data.sources[corpus].text_field"
    assert "body, id" in problem.rule
    assert f"b.{suffix}" in problem.rule


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_column_of_another_type(tmp_path: Path, suffix: str) -> None:
    table = pyarrow.table({"text": [b"bytes"]})
    if suffix == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    else:
        with pyarrow.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
            writer.write_table(table)
    problem = problem_of(tmp_path)
    assert (problem.key, "binary" in problem.rule) == ("data.sources[corpus].text_field", True)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("kept", [0.3, 0.9, -1])
def test_a_packed_file_that_was_cut_short(tmp_path: Path, suffix: str, kept: float) -> None:
    """Reading what there is as if it were all would lose text without a word."""
    content = b"".join(
        hashlib.sha256(bytes([i, j])).hexdigest().encode() + b"\n" for i in range(250) for j in range(99)
    )
    packed = PACK[f".{suffix}"](content)
    file = tmp_path / f"x.txt.{suffix}"
    file.write_bytes(packed[: int(kept * len(packed)) if kept > 0 else int(kept)])
    problem = problem_of(file, document_unit="line")
    assert problem.value == str(file)
    assert "cannot be read" in problem.rule


def test_several_frames_in_one_file(tmp_path: Path) -> None:
    for suffix, pack in PACK.items():
        (tmp_path / f"x.txt{suffix}").write_bytes(pack(b"one\n") + pack(b"two\n"))
        assert texts_of(tmp_path / f"x.txt{suffix}") == ["one\ntwo\n"], suffix


@pytest.mark.parametrize(
    "content", ['[{"text": "a"}, {"text": "b"', '[{"text": "a"} {"text": "b"}]', '[{"text": "a"}] x']
)
def test_a_broken_array(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    problem = problem_of(tmp_path / "x.json")
    assert problem.value == str(tmp_path / "x.json")
    assert "is JSON" in problem.rule


def test_a_mark_is_no_text(tmp_path: Path) -> None:
    for name, content in [("a.txt", "a"), ("b.jsonl", '{"text": "b"}'), ("c.csv", "text\nc\n")]:
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert texts_of(tmp_path) == ["a", "b", "c"]


def test_suffixes(tmp_path: Path) -> None:
    (tmp_path / "x.weird").write_text('{"text": "a"}\n', encoding="utf-8")
    problem = problem_of(tmp_path)
    assert problem.value == str(tmp_path / "x.weird")
    assert "format" in problem.remedy
    assert texts_of(tmp_path, format="text") == ['{"text": "a"}\n']
    assert texts_of(tmp_path, format="jsonl") == ["a"]
    (tmp_path / "x.weird").rename(tmp_path / "x.parquet.gz")
    assert "unpack" in problem_of(tmp_path).remedy
