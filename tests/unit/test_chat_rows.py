"""Conversations out of files of every format, and of every shape: the same turns, whatever holds them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pytest

from tests.s3 import Server
from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.chat.sources import told
from trainer.data.documents import documents
from trainer.data.remote import reading

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "naïve?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "日本"},
]
TOOLS = [{"name": "look", "description": "looks"}]
ROWS = [{"messages": TURNS, "tools": TOOLS}, {"messages": TURNS[1:2] + TURNS[4:], "tools": None}]


def parsed(source: SourceConfig) -> list[Any]:
    """What a source yields, its shape told by its columns."""
    (source,) = told([source])
    return [json.loads(text) for text in documents(source)]


def write(directory: Path, suffix: str) -> Path:
    """ROWS in a file."""
    path = directory / f"rows.{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    table = pa.Table.from_pylist(ROWS)
    if suffix == "jsonl":
        path.write_text(lines)
    elif suffix == "json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif suffix == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "messages", "tools"])
            writer.writerows([n, *(json.dumps(v) if v else "" for v in row.values())] for n, row in enumerate(ROWS))
    elif suffix == "parquet":
        pd.DataFrame({**{name: table[name].to_pylist() for name in ROWS[0]}, "id": [0, 1]}).to_parquet(path)
    elif suffix == "arrow":
        with pa.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        with tarfile.open(path, "w") as archive:
            for number, row in enumerate(ROWS):
                content = json.dumps(row).encode()
                member = tarfile.TarInfo(f"{number}.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "arrow", "tar"])
def test_every_format_gives_the_same_turns(tmp_path: Path, suffix: str) -> None:
    found = parsed(SourceConfig(paths=[str(write(tmp_path, suffix))], chat="auto"))
    assert found == [{"messages": TURNS, "tools": TOOLS}, {"messages": [TURNS[1], TURNS[4]]}]


@pytest.mark.slow
def test_a_data_set_on_disk_gives_them_too(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"))
    found = parsed(SourceConfig(kind="huggingface", paths=[str(tmp_path / "set")], chat="auto"))
    assert found == [{"messages": TURNS, "tools": TOOLS}, {"messages": [TURNS[1], TURNS[4]]}]


def test_objects_in_s3_give_them_too(s3: Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    s3.client().put_object(Bucket=bucket, Key="rows.jsonl", Body=write(tmp_path, "jsonl").read_bytes())
    with reading(DataConfig(cache_dir=str(tmp_path / "cache"))):
        found = parsed(SourceConfig(paths=[f"s3://{bucket}/rows.jsonl"], chat="auto"))
    assert found == [{"messages": TURNS, "tools": TOOLS}, {"messages": [TURNS[1], TURNS[4]]}]


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}
CALL = {"name": "f", "arguments": {"x": 1}}
SHAPES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"instruction": "a", "input": "", "output": "b"}, {"messages": [USER, ASSISTANT]}),
    ({"instruction": "a", "output": "b", "system": "s"}, {"messages": [SYSTEM, USER, ASSISTANT]}),
    ({"instruction": "a", "input": "i", "output": "b"}, {"messages": [{**USER, "content": "a\ni"}, ASSISTANT]}),
    (
        {"instruction": "c", "output": "d", "history": [["a", "b"]]},
        {"messages": [USER, ASSISTANT, {**USER, "content": "c"}, {**ASSISTANT, "content": "d"}]},
    ),
    ({"prompt": "a", "completion": "b", "other": 1}, {"prompt": "a", "completion": "b"}),
    ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, {"messages": [SYSTEM, USER, ASSISTANT], "from": 2}),
    (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
        {"messages": [SYSTEM, USER, ASSISTANT]},
    ),
    (
        {
            "conversations": [
                {"from": "user", "value": "a"},
                {"from": "function_call", "value": json.dumps(CALL)},
                {"from": "observation", "value": "3"},
                {"from": "assistant", "value": "b"},
            ],
            "tools": json.dumps(TOOLS),
        },
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
                {"role": "tool", "content": "3"},
                ASSISTANT,
            ],
            "tools": TOOLS,
        },
    ),
    (
        {"messages": [USER, {**ASSISTANT, "reasoning": "r"}]},
        {"messages": [USER, {**ASSISTANT, "reasoning": "r", "thinking": "r", "reasoning_content": "r"}]},
    ),
]


@pytest.mark.parametrize(("row", "expected"), SHAPES)
def test_every_shape_is_told_by_its_columns(tmp_path: Path, row: dict[str, Any], expected: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert parsed(SourceConfig(paths=[str(tmp_path / "rows.jsonl")], chat="auto")) == [expected]


def test_the_column_of_the_turns_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"talk": [USER, ASSISTANT]}) + "\n")
    source = SourceConfig(paths=[str(tmp_path / "rows.jsonl")], chat="messages", text_field="talk")
    assert parsed(source) == [{"messages": [USER, ASSISTANT]}]
