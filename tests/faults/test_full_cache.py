"""A disk that is full where data.cache_dir is, at whatever is written there: exit 4 with key and remedy.

A real one, a small file system in memory, where a namespace may mount one; a limit on the size of files stands for it
everywhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.s3 import Server
from tests.selection import long
from tests.unit.test_data_support import byte_tokenizer

pytestmark = pytest.mark.slow
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def mounts() -> bool:
    """Whether this user may mount a file system of its own."""
    try:
        done = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def start(cwd: Path, room: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run whose cache has room for less than is to be written. room: KiB."""
    words = [sys.executable, str(harness.TRAIN), *harness.SMALL, "data.cache_dir=cache", "run.name=full", *overrides]
    (cwd / "cache").mkdir()
    if mounts():
        script = f'mount -t tmpfs -o size={room}k none cache && exec "$@"'
        words = [*NAMESPACE, "sh", "-c", script, "sh", *words]
    else:
        words = ["bash", "-c", f'ulimit -f {room}; exec "$@"', "bash", *words]
    environment = harness.environment() | {"PYTHONPATH": str(harness.ROOT)}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def assert_told(cwd: Path, done: subprocess.CompletedProcess[str], words: str) -> None:
    print(done.stdout, done.stderr)
    assert done.returncode == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert "data.cache_dir = 'cache'" in done.stderr
    assert words in done.stderr
    assert "free space there, or set data.cache_dir" in done.stderr
    assert json.loads((cwd / "runs/full/exit.json").read_text())["code"] == 4


def sources(path: str) -> str:
    return f"data.sources=[{{paths: ['{path}'], document_unit: line}}]"


def test_a_tokenizer_that_cannot_be_saved(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"a few words of text, line {number}\n" for number in range(500)))
    done = start(tmp_path, "8", sources("t.txt"))
    assert_told(tmp_path, done, "cannot be written: ")
    assert "learnt a tokenizer" not in done.stdout


@pytest.mark.parametrize("where", ["s3", *long("here")])
def test_tokens_or_objects_that_cannot_be_kept(tmp_path: Path, s3: Server, where: str) -> None:
    byte_tokenizer().save(tmp_path / "tokenizer.json")
    (tmp_path / "t.txt").write_text("".join(f"a few words of text, line {number}\n" for number in range(20_000)))
    path = "t.txt"
    if where == "s3":
        path = f"s3://{s3.bucket()}/t.txt"
        s3.client().upload_file(str(tmp_path / "t.txt"), path.split("/")[2], "t.txt")
    done = start(tmp_path, "64", sources(path), "data.tokenizer={kind: file, path: tokenizer.json}")
    assert_told(tmp_path, done, "cannot be written: ")
    if where == "s3":
        assert not any(method == "GET" and path.endswith("t.txt") for method, path, _ in s3.requests)
