"""A part of a checkpoint, opened: any region of any of its tensors, whatever layout wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.checkpoint.index import file_of, read_index
from trainer.checkpoint.mapped import MappedFiles
from trainer.checkpoint.slices import overlaps
from trainer.checkpoint.strict_json import Unsound
from trainer.parallel.boxes import Box

LET_GO = 256 << 20
"""Bytes read until the mapped pages are let go of: the page cache keeps them, the process need not."""


class Opened:
    """index: the part's tensors by name."""

    def __init__(self, directory: Path) -> None:
        """Raises Unsound or OSError."""
        self.index = read_index(directory)
        self._files = MappedFiles(directory)
        self._read = 0

    def read(self, name: str, offsets: Sequence[int], target: torch.Tensor) -> None:
        """Copy the region that begins at ``offsets`` and has the target's shape, converted to the target's dtype.

        Raises Unsound where a file is not as the index says, or cannot be read.
        """
        stored, sizes = self.index[name], tuple(target.shape)
        box = Box(name, stored.shape, tuple(offsets), sizes, tuple(slice(0, size) for size in sizes))
        for part in overlaps(name, stored, box):
            try:
                chunk = self._files.tensor(file_of(part.rank), part.key, stored.dtype, part.shape)
            except OSError as error:
                raise Unsound(f"{file_of(part.rank)}: {error.strerror}") from None
            target[part.place].copy_(chunk[part.source])
        self._read += target.nbytes
        if self._read >= LET_GO:
            self._read = 0
            self._files.let_go()
