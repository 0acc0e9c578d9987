"""300 MB in one line or in many: memory is bounded by a block and one document, not by the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MIB = 1 << 20
BOUND_MIB = 150
LINE = b"word " * 200
COUNT = 300 * MIB // len(LINE)
# The process's own peak: getrusage's is at least that of the process which started it.
READ = """
import re, sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents
count = sum(1 for text in documents(SourceConfig(paths=sys.argv[1:], document_unit="line")))
print(count, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def one_line(before: bytes, after: bytes) -> Iterator[bytes]:
    yield before
    yield from [b"x" * MIB] * 300
    yield after


FILES = {
    "one line.txt": (1, one_line(b"", b"\nshort\n")),
    "many lines.txt": (COUNT, (LINE + b"\n" for _ in range(COUNT))),
    "one line.jsonl": (1, one_line(b'{"text": "', b'"}\n{"text": "short"}\n')),
    "many lines.jsonl": (COUNT, (b'{"text": "' + LINE + b'"}\n' for _ in range(COUNT))),
    "array.json": (COUNT, ((b"," if i else b"[") + b'{"text": "' + LINE + b'"}' + b"]" * (i == COUNT - 1)
                           for i in range(COUNT))),
    "one cell.csv": (1, one_line(b'text\n"', b'"\nshort\n')),
    "many cells.csv": (COUNT, (b"text\n" if i < 0 else b'"' + LINE + b'"\n' for i in range(-1, COUNT))),
}  # fmt: skip


def peak_of(file: Path) -> tuple[int, int]:
    """Documents, and MiB at the peak."""
    done = subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True)
    documents, peak = map(int, done.stdout.split())
    return documents, peak


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> int:
    """MiB of a run on one short line."""
    file = tmp_path_factory.mktemp("nothing") / "x.txt"
    file.write_text("short\n", encoding="utf-8")
    return peak_of(file)[1]


@pytest.mark.parametrize("name", FILES)
def test_memory_of_large_files(tmp_path: Path, nothing: int, name: str) -> None:
    expected, content = FILES[name]
    with open(tmp_path / name, "wb") as target:
        target.writelines(content)
    documents, peak = peak_of(tmp_path / name)
    assert documents == expected
    assert peak - nothing < BOUND_MIB


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_memory_of_a_large_table(tmp_path: Path, nothing: int, suffix: str) -> None:
    """One row group; record batches as the datasets library writes them, of 1,000 rows."""
    code = """
import sys, pyarrow as pa, pyarrow.ipc, pyarrow.parquet as pq
text = ["".join(chr(33 + (i * j) % 90) for j in range(1000)) for i in range(1000)]
table = pa.table({"text": [f"{i} {text[i % 1000]}" for i in range(300_000)]})
if sys.argv[1].endswith("parquet"):
    pq.write_table(table, sys.argv[1], compression="zstd", row_group_size=300_000)
else:
    with pyarrow.ipc.new_stream(sys.argv[1], table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
"""
    file = tmp_path / f"x.{suffix}"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    documents, peak = peak_of(file)
    assert documents == 300_000
    assert peak - nothing < BOUND_MIB
