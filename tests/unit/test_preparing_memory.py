"""Memory of a preparation: of each process the peak, by the kernel's count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.unit.test_data_support import byte_tokenizer

pytestmark = pytest.mark.slow
PROGRAM = """
import json, resource, sys
from pathlib import Path
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.preparing.preparation import Options, prepare

source = SourceConfig(name="x", paths=["x"], document_unit=sys.argv[1])
config = DataConfig(sources=[source], tokenizer=TokenizerConfig(kind="file", path="tokenizer.json"))
(done,) = prepare(config, Options(Path("out").absolute(), 2), lambda line: None)
status = Path("/proc/self/status").read_text()  # ru_maxrss of oneself has that of the parent before exec
own = int(status.partition("VmHWM:")[2].split()[0])
peaks = [own / 1000, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000]
figures = done.manifest["figures"]
documents = figures["train"]["documents"] + figures["heldout"]["documents"]
skipped = sum(count["number"] for count in figures["skipped"]["bad"].values())
print(json.dumps({"peaks": peaks, "documents": documents, "skipped": skipped}))
"""
LIMIT = 300


def prepared(cwd: Path, unit: str) -> dict[str, int]:
    byte_tokenizer().save(cwd / "tokenizer.json")
    environment = harness.environment() | {"PYTHONPATH": str(harness.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, unit], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert max(found["peaks"]) < LIMIT, found
    return {name: found[name] for name in ("documents", "skipped")}


def write_line(file: Path, size: int) -> None:
    block = b"word and another word " * 50_000
    with open(file, "wb") as lines:
        lines.write(b"the first line\n")
        for _ in range(size // len(block)):
            lines.write(block)
        lines.write(b"\nthe last line\n")


@pytest.mark.parametrize("size", [200_000_000, pytest.param(2_000_000_000, marks=pytest.mark.long)])
def test_a_line_that_is_longer_than_a_document_may_be(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").mkdir()
    write_line(tmp_path / "x" / "x.txt", size)
    assert prepared(tmp_path, "line") == {"documents": 2, "skipped": 1}


@pytest.mark.long
def test_small_files(tmp_path: Path) -> None:
    count = 100_000
    for number in range(count):
        file = tmp_path / "x" / f"{number // 1000}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"file number {number}")
    assert prepared(tmp_path, "file") == {"documents": count, "skipped": 0}


def test_a_document_that_is_long(tmp_path: Path) -> None:
    """With a token for each byte. As a whole it would take the encoder alone more than a gigabyte."""
    (tmp_path / "x").mkdir()
    write_line(tmp_path / "x" / "x.txt", 12_000_000)
    assert prepared(tmp_path, "file") == {"documents": 1, "skipped": 0}
