"""What lies somewhere, the interface that all storages have, and what can go wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from trainer.errors import DataError, Problem
from trainer.rules.places import S3

BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A file or an object as it was when it was looked at.

    path: its name, with s3:// and the bucket. size: bytes. mtime: seconds since 1970. etag: another one tells that the
    content is another.
    """

    path: str
    size: int
    mtime: float
    etag: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> PurePosixPath:
        """Its name, for suffixes and for what lies above it."""
        return PurePosixPath(self.path.removeprefix(S3))


class StorageError(DataError):
    """A storage does not give or take what it is asked for."""

    def __init__(self, key: str, path: str, rule: str, remedy: str) -> None:
        super().__init__(Problem(key, path, rule, remedy))


class Missing(StorageError):
    """There is nothing of this name."""


class Denied(StorageError):
    """This user may not."""


class Exists(StorageError):
    """There is something of this name already."""


class Replaced(StorageError):
    """Something else has the name now."""


class Storage(Protocol):
    """Files by their whole name. Each method raises StorageError, under the key that the storage was opened with."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """All whose names begin with the prefix, at any depth, in the order of their names."""
        ...

    def children(self, directory: str) -> tuple[str, ...]:
        """Names of the directories in one (its name ends with a slash), in their order; nothing below is looked at."""
        ...

    def glob(self, pattern: str) -> Iterator[Stored]:
        """All that a pattern names (``patterns.names``), in the order of their names."""
        ...

    def stat(self, path: str) -> Stored:
        """Raises Missing."""
        ...

    def read(self, stored: Stored, offset: int, size: int) -> bytes:
        """Exactly so many bytes. Raises Replaced where it is no longer what was looked at."""
        ...

    def stream(self, stored: Stored, block: int = BLOCK) -> Iterator[bytes]:
        """All bytes, in blocks of at most so many; as ``read``."""
        ...

    def write(self, path: str, data: bytes, only_new: bool = False) -> Stored:
        """Whole or not at all. only_new: raises Exists where there is something already."""
        ...

    def upload(self, path: str, file: Path, only_new: bool = False) -> Stored:
        """The same with a local file's content, of any size."""
        ...

    def delete(self, path: str) -> None:
        """There is nothing of this name afterwards; nothing happens where there was not before."""
        ...


def is_remote(path: str) -> bool:
    """Whether a path is an object's in S3."""
    return path.startswith(S3)


def replaced(key: str, stored: Stored) -> Replaced:
    """The error for what was replaced while it was being read."""
    rule = "was replaced while it was being read: its parts would be of two contents"
    return Replaced(key, stored.path, rule, "leave it as it is while a run reads it; start again to read the new one")


def exists(key: str, path: str) -> Exists:
    """The error for a name that is taken."""
    return Exists(key, path, "is written once, and exists already", "choose another name, or delete it first")
