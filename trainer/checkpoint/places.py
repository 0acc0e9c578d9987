"""What each file of a part of a checkpoint holds, by its index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainer.checkpoint.index import Stored, file_of, key_of
from trainer.checkpoint.strict_json import Unsound

Held = tuple[str, tuple[int, ...]]
"""Dtype and shape of a chunk."""


class Places:
    """The chunks of an index, sorted by file. There may be millions, of which a rank asks for its share."""

    def __init__(self, index: Mapping[str, Stored]) -> None:
        self._tensors = list(index.items())
        ranks = [tensor.ranks for _, tensor in self._tensors] or [np.zeros(0, dtype=np.int32)]
        counts = [len(part) for part in ranks]
        owners = np.concatenate(ranks)
        self._order = np.argsort(owners, kind="stable")
        self._owners = owners[self._order]
        self._ends = np.cumsum(counts)

    def files(self) -> set[str]:
        """Names of the files that hold something."""
        return {file_of(rank) for rank in np.unique(self._owners).tolist()}

    def held(self, rank: int) -> dict[str, Held]:
        """What a rank's file holds, by key. Raises Unsound when two tensors would have one key."""
        found: dict[str, Held] = {}
        first, last = np.searchsorted(self._owners, [rank, rank + 1])
        for place in self._order[first:last].tolist():
            number = int(np.searchsorted(self._ends, place, side="right"))
            name, tensor = self._tensors[number]
            offsets, sizes = tensor.chunk(place - int(self._ends[number]) + len(tensor.ranks))
            key = key_of(name, tensor.shape, offsets, sizes)
            if key in found:
                raise Unsound(f"two tensors have the key {key[:100]} in {file_of(rank)}")
            found[key] = (tensor.dtype, sizes)
        return found
