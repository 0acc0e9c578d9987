"""Parts of a file give what the whole file gives, wherever it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.config.groups.data import SourceConfig
from trainer.data.readers import parts as parts_module
from trainer.data.readers import streams
from trainer.data.readers.files import FileOf, files_of, found_in_files
from trainer.data.readers.found import Aside, Bad, Document
from trainer.data.readers.parts import Part, lines_before

Seen = list[tuple[str, str, int]]


def read(source: SourceConfig, cuts: list[int]) -> Seen:
    """What is found: text or reason, unit, line or row in the whole file."""
    ((path, form, _),) = files_of(source)
    ends = [0, *cuts, path.stat().st_size + 1]
    every: list[Part | None] = [Part(*ends[n : n + 2]) for n in range(len(ends) - 1)] if cuts else [None]
    seen: Seen = []
    lines = 0
    for part in every:
        for found in found_in_files(source, [FileOf(path, form, part)]):
            what = found.text if isinstance(found, Document) else found.words if isinstance(found, Aside) else ""
            what = f"bad: {found.reason.words}" if isinstance(found, Bad) else what
            seen.append((what, found.place.unit, found.place.number + (lines if found.place.unit == "line" else 0)))
        if part is not None:
            if path.suffix in (".txt", ".jsonl"):
                assert lines_before(path, form.name, source.document_unit, part) == lines
            lines += part.lines
    return seen


TEXT = st.lists(st.sampled_from(["a", "\u4f60", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "bc d", "\n\n\n"]), max_size=40)


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@pytest.mark.parametrize("block", [1, 1 << 20])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=TEXT, data=st.data())
def test_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, block: int, words: list[str], data: st.DataObject
) -> None:
    monkeypatch.setattr(streams, "BLOCK", block)
    monkeypatch.setattr(parts_module, "BLOCK", block)
    file = tmp_path / "x.txt"
    file.write_bytes("".join(["x", *words]).encode())
    cuts = sorted(data.draw(st.lists(st.integers(1, file.stat().st_size), min_size=1, max_size=4)))
    source = SourceConfig(paths=[str(file)], document_unit=unit, format="text")
    assert read(source, cuts) == read(source, [])


ROWS = st.sampled_from(['{"text": "a"}', '{"text": "\u4f60\\n"}', '{"text": null}', "{", "[1]", "", '{"other": 1}'])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, max_size=12), mark=st.booleans(), end=st.booleans(), data=st.data())
def test_json_lines(tmp_path: Path, rows: list[str], mark: bool, end: bool, data: st.DataObject) -> None:
    file = tmp_path / "x.jsonl"
    text = "\n".join(['{"text": "first"}', *rows]) + "\n" * end
    file.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    cuts = sorted(data.draw(st.lists(st.integers(4, file.stat().st_size), min_size=1, max_size=4)))
    source = SourceConfig(paths=[str(file)])
    assert read(source, cuts) == read(source, [])


def test_an_array_of_json_is_read_with_the_first_part(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"text": f"t{n}"} for n in range(50)], indent=1))
    found = read(SourceConfig(paths=[str(tmp_path / "x.json")]), [10, 400, 700])
    assert [text for text, *_ in found] == [f"t{n}" for n in range(50)]


@pytest.mark.parametrize("cuts", [[1], [300, 301, 900], [5000]])
def test_parquet_by_row_groups(tmp_path: Path, cuts: list[int]) -> None:
    file = tmp_path / "x.parquet"
    texts = [f"text {n}" for n in range(100)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file, row_group_size=7)
    found = read(SourceConfig(paths=[str(file)]), cuts)
    assert found == [(text, "row", row) for row, text in enumerate(texts)]
