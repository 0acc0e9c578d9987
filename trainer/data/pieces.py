"""Pieces of a large file, read where they are asked for.

By pread and not through a map: a map's pages count as this process's memory for as long as it lives, up to the whole
corpus; a truncated file or a failing disk is a SIGBUS there and an error here; and the kernel would read around each
place. The pages that are read stay in the machine's cache either way, for all ranks of a node. What lies in S3 is read
by blocks, which stay on the local disk for all ranks of a node (trainer.storage.copies).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from trainer.data.remote import copies, on_disk_of
from trainer.errors import RunError
from trainer.storage.base import is_remote
from trainer.storage.open import storage_of

Refuse = Callable[[str, str], RunError]


class Pieces(Protocol):
    """size: bytes when it was opened."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes. Raises RunError where they are not to be had."""
        ...

    def read_into(self, offset: int, target: memoryview) -> None:
        """``read`` of as many bytes as the target has, into it."""
        ...


def opened(path: str, refuse: Refuse, key: str) -> Pieces:
    """A file, or an object in S3. refuse: makes the error for what cannot be read, from the path and the rule; key: of
    the configuration, that a storage's errors are reported under.
    """
    return LargeObject(path, refuse, key) if is_remote(path) else LargeFile(path, refuse)


class LargeFile:
    """A file that stays open. size: bytes when it was opened."""

    def __init__(self, path: str, refuse: Refuse) -> None:
        """refuse: makes the error for what cannot be read, from the path and the rule."""
        self.path, self._refuse = path, refuse
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise refuse(path, f"cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # nothing around what is asked for

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes. Raises what ``refuse`` makes where they are not to be had."""
        try:
            found = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise self._refuse(self.path, f"cannot be read at byte {offset}: {error.strerror}") from error
        if len(found) < size:
            raise self._refuse(self.path, f"ends at byte {offset + len(found)}; it had {self.size} when it was opened")
        return found

    def read_into(self, offset: int, target: memoryview) -> None:
        """``read`` without a copy."""
        try:
            whole = os.preadv(self._descriptor, [target], offset) == len(target)
        except OSError:
            whole = False
        if not whole:
            target[:] = self.read(offset, len(target))  # raises, with the cause


class LargeObject:
    """An object in S3, as it was when it was opened: one that is replaced later is an error. size: its bytes."""

    def __init__(self, path: str, refuse: Refuse, key: str) -> None:
        """Inside of trainer.data.remote.reading; it may be read after that. Raises StorageError."""
        self.path, self._refuse = path, refuse
        self._storage, self._copies = storage_of(path, key), copies()
        self._stored = self._storage.stat(path)
        self.size = self._stored.size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes. Raises DataError; what ``refuse`` makes for what lies beyond the end."""
        if offset + size > self.size:
            raise self._refuse(self.path, f"ends at byte {self.size}, and is asked for {size} from {offset} on")
        with on_disk_of(self._copies):
            return self._copies.read(self._storage, self._stored, offset, size)

    def read_into(self, offset: int, target: memoryview) -> None:
        """``read``, into the target."""
        target[:] = self.read(offset, len(target))


class Table:
    """Numbers of one type that lie in a file, one after the other."""

    def __init__(self, file: Pieces, offset: int, dtype: str, count: int) -> None:
        self._file, self._offset, self._dtype, self._count = file, offset, np.dtype(dtype), count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> NDArray[Any]: ...
    def __getitem__(self, place: int | slice) -> int | NDArray[Any]:
        """One number, by an index from 0 or from the end, or those of a slice without a step, in memory."""
        if isinstance(place, slice):
            start, stop, _ = place.indices(self._count)
            return self._run(start, max(0, stop - start))
        return int(self._run(range(self._count)[place], 1)[0])

    def read_into(self, place: int, numbers: NDArray[Any]) -> None:
        """Fill an array of this type, in one piece, with the numbers from ``place`` on."""
        self._file.read_into(self._offset + place * self._dtype.itemsize, numbers.data.cast("B"))

    def _run(self, start: int, count: int) -> NDArray[Any]:
        width = self._dtype.itemsize
        return np.frombuffer(self._file.read(self._offset + start * width, count * width), self._dtype)
