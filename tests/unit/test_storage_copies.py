"""Copies of objects on a local disk: downloaded once by all, bounded, and never half of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness
from tests.s3 import CUT, Server
from trainer.errors import DataError
from trainer.storage import copies as room
from trainer.storage.base import BLOCK, Stored
from trainer.storage.copies import Copies
from trainer.storage.open import storage_of

SIZE = 100_000


def make(s3: Server, count: int, size: int = SIZE) -> list[Stored]:
    """Objects of random bytes."""
    bucket = s3.bucket()
    for number in range(count):
        s3.client().put_object(Bucket=bucket, Key=f"{number}", Body=os.urandom(size))
    return list(storage_of("s3://", "k").list(f"s3://{bucket}/"))


def content(s3: Server, stored: Stored) -> bytes:
    bucket, key = stored.path[5:].split("/")
    return bytes(s3.client().get_object(Bucket=bucket, Key=key)["Body"].read())


def kept(copies: Copies) -> int:
    """Bytes of the files there."""
    return sum(file.stat().st_size for file in copies.directory.iterdir() if file.name != room.USED)


def test_the_bound_is_kept_and_the_oldest_goes(s3: Server, tmp_path: Path) -> None:
    copies, storage, objects = Copies(tmp_path / "c", 4.9 * SIZE), storage_of("s3://", "k"), make(s3, 6)
    files: list[Path] = []
    for number, stored in enumerate(objects[:4]):
        with copies.whole(storage, stored) as file:
            files.append(file)
        os.utime(file, (number, number))
    with copies.whole(storage, objects[0]):  # the oldest is the latest now
        pass
    with copies.whole(storage, objects[4]) as file:
        assert file.read_bytes() == content(s3, objects[4])
        assert kept(copies) <= copies.bound
    assert [file.exists() for file in files] == [True, False, True, True]
    s3.requests.clear()
    with copies.whole(storage, objects[0]):
        assert s3.requests == []


def test_what_is_in_use_stays(s3: Server, tmp_path: Path) -> None:
    copies, storage, objects = Copies(tmp_path / "c", 2.5 * SIZE), storage_of("s3://", "k"), make(s3, 4)
    with copies.whole(storage, objects[0]) as first, copies.whole(storage, objects[1]) as second:
        with pytest.raises(DataError) as caught, copies.whole(storage, objects[2]):
            pass
        assert first.exists()
        assert second.exists()
    (problem,) = caught.value.problems
    assert problem.key == "data.cache_gb"
    assert objects[2].path in problem.rule
    with copies.whole(storage, objects[2]) as third:
        assert third.read_bytes() == content(s3, objects[2])
    small = Copies(tmp_path / "d", SIZE - 1)
    with pytest.raises(DataError, match=r"data\.cache_gb"), small.whole(storage, objects[3]):
        pass


def test_ranges_come_out_of_blocks(s3: Server, tmp_path: Path) -> None:
    (stored,) = make(s3, 1, 3 * BLOCK + 17)
    data = content(s3, stored)
    copies, storage = Copies(tmp_path / "c", 1e9), storage_of("s3://", "k")
    s3.requests.clear()
    for offset, size in ((0, 1), (BLOCK - 3, 6), (5, 2 * BLOCK), (3 * BLOCK, 17), (len(data), 0), (0, len(data))):
        assert copies.read(storage, stored, offset, size) == data[offset : offset + size]
    assert len(s3.requests) == 4
    big = Copies(tmp_path / "d", 1e9)
    room_step, room.STEP = room.STEP, 1 << 18  # several requests at once
    try:
        with big.whole(storage, stored) as file:
            assert file.read_bytes() == data
    finally:
        room.STEP = room_step


def test_a_failed_download_leaves_nothing(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STEP", SIZE // 4)
    copies, storage, (stored,) = Copies(tmp_path / "c", 1e9), storage_of("s3://", "k"), make(s3, 1)
    for fault in (CUT, "500"):
        failing = s3.failing(lambda method, path, number, fault=fault: fault if number > 1 else None)
        with failing, pytest.raises(DataError), copies.whole(storage, stored):
            pass
        assert [file.name for file in copies.directory.iterdir()] == [room.USED]
    with copies.whole(storage, stored) as file:
        assert file.read_bytes() == content(s3, stored)


def test_a_full_disk_is_met_before_the_download(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies, storage, (stored,) = Copies(tmp_path / "c", 1e9), storage_of("s3://", "k"), make(s3, 1)

    def full(*given: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    s3.requests.clear()
    with pytest.raises(OSError, match="No space"), copies.whole(storage, stored):
        pass
    assert s3.requests == []
    assert not list(copies.directory.glob("*.part"))


READER = """
import sys
from pathlib import Path
from trainer.storage.copies import Copies
from trainer.storage.open import storage_of

print("ready", flush=True)
sys.stdin.readline()
storage = storage_of("s3://", "k")
with Copies(Path(sys.argv[1]), 1e9).whole(storage, storage.stat(sys.argv[2])) as file:
    print(len(file.read_bytes()), flush=True)
"""


def reader(directory: Path, path: str) -> subprocess.Popen[str]:
    """A process of its own that wants one object."""
    environment = harness.environment() | {"PYTHONPATH": str(harness.ROOT)}
    found = subprocess.Popen(
        [sys.executable, "-c", READER, str(directory), path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert found.stdout is not None
    assert found.stdout.readline() == "ready\n"
    return found


def test_two_processes_at_once_download_once(s3: Server, tmp_path: Path) -> None:
    (stored,) = make(s3, 1)
    readers = [reader(tmp_path / "c", stored.path) for _ in range(2)]
    s3.requests.clear()
    with s3.failing(lambda method, path, number: time.sleep(0.5) if method == "GET" else None):
        for one in readers:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        assert [one.communicate(timeout=30)[0] for one in readers] == [f"{SIZE}\n"] * 2
    assert [method for method, *_ in s3.requests].count("GET") == 1


def test_a_download_whose_process_was_killed_is_done_again(s3: Server, tmp_path: Path) -> None:
    (stored,) = make(s3, 1)
    killed = reader(tmp_path / "c", stored.path)
    assert killed.stdin is not None

    def kill(method: str, path: str, number: int) -> str | None:
        if method == "GET":
            killed.send_signal(signal.SIGKILL)
        return None

    with s3.failing(kill):
        killed.stdin.write("\n")
        killed.stdin.flush()
        killed.communicate(timeout=30)
    assert len(list((tmp_path / "c").glob("*.part"))) == 1
    copies = Copies(tmp_path / "c", 1e9)
    with copies.whole(storage_of("s3://", "k"), stored) as file:
        assert file.read_bytes() == content(s3, stored)
    assert not list((tmp_path / "c").glob("*.part"))
