"""One interface, two storages: what is promised of local files is promised of S3, by boto3's own client's word."""

from __future__ import annotations

import glob
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.s3 import Server
from trainer.storage import s3 as objects
from trainer.storage import uploads
from trainer.storage.base import Exists, Missing, Replaced, StorageError
from trainer.storage.open import storage_of

KEY = "some.key"
NAMES = [
    "a/one.txt",
    "a/two.jsonl",
    "a/deep/er/three.txt",
    "a/.hidden/x.txt",
    "ab/four.txt",
    "a b+c%20&=\u00e9.txt",
    "a/[1].txt",
]


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a test may write."""
    if request.param == "local":
        return str(tmp_path / "here")
    return f"s3://{request.getfixturevalue('s3').bucket()}/below"


def content(path: str, server: Server) -> bytes:
    """As somebody else reads it."""
    if not path.startswith("s3://"):
        return Path(path).read_bytes()
    bucket, name = path[5:].split("/", 1)
    return bytes(server.client().get_object(Bucket=bucket, Key=name)["Body"].read())


def test_what_is_written_is_read(root: str, s3: Server) -> None:
    storage, data = storage_of(root, KEY), os.urandom(200_000)
    stored = storage.write(f"{root}/x/y.bin", data)
    assert content(f"{root}/x/y.bin", s3) == data
    assert (stored.path, stored.size) == (f"{root}/x/y.bin", len(data))
    found = storage.stat(f"{root}/x/y.bin")
    assert (found.size, found.etag) == (stored.size, stored.etag)
    for offset, size in ((0, len(data)), (0, 1), (70_000, 60_000), (len(data) - 1, 1), (5, 0)):
        assert storage.read(found, offset, size) == data[offset : offset + size]
    assert b"".join(storage.stream(found, 4097)) == data
    with pytest.raises(StorageError, match="ends at"):
        storage.read(found, len(data) - 1, 2)
    storage.delete(found.path)
    storage.delete(found.path)
    with pytest.raises(Missing):
        storage.stat(found.path)


def test_names_and_patterns(root: str, s3: Server, tmp_path: Path) -> None:
    storage = storage_of(root, KEY)
    there = tmp_path / "glob"
    for name in NAMES:
        storage.write(f"{root}/{name}", name.encode())
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"")
    assert [one.path for one in storage.list(f"{root}/")] == sorted(f"{root}/{name}" for name in NAMES)
    assert [one.path for one in storage.list(f"{root}/a/t")] == [f"{root}/a/two.jsonl"]
    assert [one.size for one in storage.list(f"{root}/ab")] == [len("ab/four.txt")]
    assert storage.children(f"{root}/") == tuple(sorted({name.split("/")[0] for name in NAMES if "/" in name}))
    for pattern in ("*/*.txt", "**/*.txt", "a*/**/*.t?t", "a/[a-o]*.txt", "a/[[]1].txt", "a/.h*/*", "nothing*"):
        hits = glob.glob(pattern, root_dir=there, recursive=True)  # noqa: PTH207 - gives the names below
        expected = sorted(f"{root}/{hit}" for hit in hits if (there / hit).is_file())
        assert [one.path for one in storage.glob(f"{root}/{pattern}")] == expected, pattern


def test_a_name_is_written_once(root: str, s3: Server) -> None:
    storage = storage_of(root, KEY)

    def write(number: int) -> bool:
        try:
            storage.write(f"{root}/once", b"%d" % number, only_new=True)
        except Exists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert content(f"{root}/once", s3) == b"%d" % won.index(True)
    storage.write(f"{root}/once", b"other")  # whoever means it may
    assert content(f"{root}/once", s3) == b"other"


def test_a_file_is_uploaded_whole_or_not_at_all(
    root: str, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "WHOLE", 1 << 20)
    monkeypatch.setattr(uploads, "PART", 5 << 20)
    storage, file = storage_of(root, KEY), tmp_path / "file"
    for size in (0, 1000, 12 << 20):
        file.write_bytes(data := os.urandom(size))
        storage.upload(f"{root}/up-{size}", file, only_new=True)
        assert content(f"{root}/up-{size}", s3) == data
        file.write_bytes(os.urandom(size) or b"x")
        with pytest.raises(Exists):
            storage.upload(f"{root}/up-{size}", file, only_new=True)
        assert content(f"{root}/up-{size}", s3) == data
    if root.startswith("s3://"):
        assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=root[5:].split("/")[0])


def test_what_was_replaced_is_no_longer_read(root: str, s3: Server) -> None:
    storage = storage_of(root, KEY)
    stored = storage.write(f"{root}/x", b"a" * 100)
    stream = storage.stream(stored, 10)
    assert next(stream) == b"a" * 10
    storage.write(f"{root}/x", b"b" * 100)
    with pytest.raises(Replaced) as caught:
        storage.read(stored, 10, 10)
    assert (caught.value.problems[0].key, caught.value.problems[0].value) == (KEY, f"{root}/x")
    if root.startswith("s3://"):
        with pytest.raises(Replaced):
            list(stream)
    else:
        assert b"".join(stream) == b"a" * 90  # the file that was opened
