"""Tensors of files as views over mapped memory: what is copied goes from the page cache to its place, and takes no
memory of the process.
"""

from __future__ import annotations

import mmap
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tensorfile import Entry, read_header

MOST_FILES = 64
"""That are mapped at a time: each takes a file descriptor."""


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, only to be read. Raises OSError."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def view(mapped: mmap.mmap, entry: Entry) -> torch.Tensor:
    """A tensor over the mapped file, only to be read. The map is not to be closed as long as it lives."""
    dtype: torch.dtype = getattr(torch, entry.dtype)
    count = int(np.prod(entry.shape, dtype=np.int64))
    if not count:
        return torch.empty(entry.shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")  # it is only read
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=entry.start).view(entry.shape)


class MappedFiles:
    """The safetensors files of a directory, each mapped when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._headers: dict[str, dict[str, Entry]] = {}  # of closed ones too: a tensor may be cut over all files

    def let_go(self) -> None:
        """Of the pages that were read: the page cache keeps them, and the process takes them anew where it has to."""
        for mapped in self._open.values():
            mapped.madvise(mmap.MADV_DONTNEED)

    def tensor(self, file: str, key: str, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor, only to be read. Raises Unsound where the file does not hold it like this; or OSError."""
        if file not in self._open:
            if len(self._open) >= MOST_FILES:
                self._open.popitem(last=False)  # the map goes once no view of it is left
            path = self._directory / file
            if file not in self._headers:
                self._headers[file] = read_header(path)
            self._open[file] = map_file(path)
        self._open.move_to_end(file)
        found = self._headers[file].get(key)
        if found is None or (found.dtype, found.shape) != (dtype, shape):
            raise Unsound(f"{file}: {key} is not there as {dtype} {list(shape)} any more")
        return view(self._open[file], found)
