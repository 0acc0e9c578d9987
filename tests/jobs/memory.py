"""A storage in memory, with S3's promises, in which every write can be made to fail or to be the last one."""

from __future__ import annotations

import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainer.storage.base import BLOCK, Exists, Missing, StorageError, Stored


class Killed(BaseException):
    """This process is gone: nothing of it may catch that."""


@dataclass
class Memory:
    """objects: bytes by whole name. before, after: called with each change's kind and name; what they raise, counts."""

    objects: dict[str, bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Of all objects, sorted."""
    before: Callable[[str, str], None] = lambda kind, path: None
    after: Callable[[str, str], None] = lambda kind, path: None

    def list(self, prefix: str) -> Iterator[Stored]:
        for path in self.names[bisect_left(self.names, prefix) :]:
            if not path.startswith(prefix):
                return
            yield self._stored(path)

    def children(self, directory: str) -> tuple[str, ...]:
        below = (name.removeprefix(directory) for name in self.names if name.startswith(directory))
        return tuple(sorted({name.partition("/")[0] for name in below if "/" in name}))

    def glob(self, pattern: str) -> Iterator[Stored]:
        raise NotImplementedError

    def stat(self, path: str) -> Stored:
        if path not in self.objects:
            raise Missing("memory", path, "is there", "write it")
        return self._stored(path)

    def read(self, stored: Stored, offset: int, size: int) -> bytes:
        self.stat(stored.path)
        return self.objects[stored.path][offset : offset + size]

    def stream(self, stored: Stored, block: int = BLOCK) -> Iterator[bytes]:
        yield self.read(stored, 0, stored.size)

    def write(self, path: str, data: bytes, only_new: bool = False) -> Stored:
        self.before("write", path)
        if only_new and path in self.objects:
            raise Exists("memory", path, "is written once", "read it")
        if path not in self.objects:
            insort(self.names, path)
        self.objects[path] = data
        self.after("write", path)
        return self._stored(path)

    def upload(self, path: str, file: Path, only_new: bool = False) -> Stored:
        return self.write(path, file.read_bytes(), only_new)

    def delete(self, path: str) -> None:
        self.before("delete", path)
        if self.objects.pop(path, None) is not None:
            self.names.remove(path)
        self.after("delete", path)

    def _stored(self, path: str) -> Stored:
        data = self.objects[path]
        return Stored(path, len(data), 0.0, str(zlib.crc32(data)))


def full(kind: str, path: str) -> None:
    """For ``before``: a disk without room, which still deletes."""
    if kind == "write":
        raise StorageError("memory", path, "can be used: No space left on device", "make room")
