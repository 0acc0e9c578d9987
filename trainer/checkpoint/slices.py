"""Copy parts of stored tensors into memory, file by file; nothing is read that is not asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from trainer.checkpoint.index import Stored, file_of, key_of
from trainer.checkpoint.mapped import map_file, view
from trainer.checkpoint.pieces import dtype_name
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tensorfile import read_header
from trainer.parallel.boxes import Box, Placed

Slices = tuple[slice, ...]
Wanted = tuple[str, tuple[str, tuple[int, ...]], Slices, torch.Tensor]
"""A chunk's key, its dtype and shape by the index, the part that is wanted, and where it goes."""


def fill(directory: Path, index: Mapping[str, Stored], tensors: Mapping[str, Placed]) -> None:
    """Read every box of this rank. Raises Unsound when a file is not what the index says; or OSError."""
    by_file: dict[int, list[Wanted]] = defaultdict(list)
    for name, placed in tensors.items():
        for box in placed.boxes:
            for rank, wanted in _chunks(name, index[name], box, placed.tensor.detach()):
                by_file[rank].append(wanted)
    for rank, wants in sorted(by_file.items()):
        path = directory / file_of(rank)
        try:
            _read(path, wants)
        except Unsound as error:
            raise Unsound(f"{path.name}: {error}") from None


def _chunks(name: str, stored: Stored, box: Box, tensor: torch.Tensor) -> Iterator[tuple[int, Wanted]]:
    """Every stored chunk that has a part of the box."""
    target = box.of(tensor)
    for chunk in overlaps(name, stored, box):
        yield chunk.rank, (chunk.key, (stored.dtype, chunk.shape), chunk.source, target[chunk.place])


class Overlap(NamedTuple):
    """What a stored chunk has of a box. key, shape: the chunk's, in the file of ``rank``. source: the part of it that
    is of the box. place: where that goes in values of shape ``box.sizes``.
    """

    rank: int
    key: str
    shape: tuple[int, ...]
    source: Slices
    place: Slices


def overlaps(name: str, stored: Stored, box: Box) -> Iterator[Overlap]:
    """The chunks of a stored tensor that have a part of the box."""
    offsets, sizes = stored.chunks()
    low, extent = np.array(box.offsets, dtype=np.int64), np.array(box.sizes, dtype=np.int64)
    firsts, lasts = np.maximum(offsets, low), np.minimum(offsets + sizes, low + extent)
    for chunk in np.flatnonzero((firsts < lasts).all(axis=1)).tolist():
        begin, first, last = offsets[chunk].tolist(), firsts[chunk].tolist(), lasts[chunk].tolist()
        size = tuple(sizes[chunk].tolist())
        source = tuple(slice(a - o, b - o) for a, b, o in zip(first, last, begin, strict=True))
        place = tuple(slice(a - o, b - o) for a, b, o in zip(first, last, box.offsets, strict=True))
        yield Overlap(int(stored.ranks[chunk]), key_of(name, stored.shape, begin, size), size, source, place)


def _read(path: Path, wants: list[Wanted]) -> None:
    entries = read_header(path)
    with map_file(path) as mapped:
        for key, (dtype, shape), source, target in wants:
            found = entries.get(key)
            if found is None or (found.dtype, found.shape) != (dtype, shape):
                raise Unsound(f"{key} is not there as {dtype} {list(shape)}, as the index says")
            assert dtype_name(target.dtype) == dtype, f"{key}: {target.dtype} cannot take {dtype}"
            target.copy_(view(mapped, found)[source])
