"""Pieces of a large file, read where they are asked for.

By pread and not through a map: a map's pages count as this process's memory for as long as it lives, up to the whole
corpus; a truncated file or a failing disk is a SIGBUS there and an error here; and the kernel would read around each
place. The pages that are read stay in the machine's cache either way, for all ranks of a node.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from trainer.errors import RunError

Refuse = Callable[[Path, str], RunError]


class LargeFile:
    """A file that stays open. size: bytes when it was opened."""

    def __init__(self, path: Path, refuse: Refuse) -> None:
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


class Table:
    """Numbers of one type that lie in a file, one after the other."""

    def __init__(self, file: LargeFile, offset: int, dtype: str, count: int) -> None:
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
