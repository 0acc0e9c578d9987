"""Best-fit-decreasing bin packing of whole numbers, many of one size at once."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def best_fit_decreasing(sizes: NDArray[np.integer], capacity: int) -> tuple[Ints, int]:
    """The bin of each item, int64 [items], and the number of bins; sizes: 1 .. capacity.

    The largest items first, each into the bin with the least room that holds it. What depends on the number of items
    is numpy's: a step of the loop empties a class of bins with equal room, or places all that is left of a size, so
    there are only a few for each different size. Equal sizes are taken in their order, equal rooms in that of opening.
    """
    bins, rooms, count = np.zeros(len(sizes), np.int64), _Rooms(), 0
    order = np.argsort(-np.asarray(sizes, np.int64), kind="stable")
    ordered = sizes[order]
    edges = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    for first, last in pairwise(edges):
        size, items = int(ordered[first]) if last else 0, order[first:last]
        while len(items):
            room = rooms.least(size) or capacity
            each = room // size
            wanted = -(-len(items) // each)
            if rooms.least(size):
                used = rooms.take(room, wanted)
            else:
                used, count = np.arange(count, count + wanted), count + wanted
            placed = min(len(items), each * len(used))
            bins[items[:placed]] = np.repeat(used, each)[:placed]
            full = placed // each
            rooms.put(room - each * size, used[:full])
            rooms.put(room - (placed - full * each) * size, used[full:])
            items = items[placed:]
    return bins, count


class _Rooms:
    """Bins by the room that is left in them."""

    def __init__(self) -> None:
        self._rising: list[int] = []
        self._bins: dict[int, list[Ints]] = {}

    def least(self, size: int) -> int | None:
        """The least room of at least ``size``; None without any."""
        place = bisect_left(self._rising, size)
        return self._rising[place] if place < len(self._rising) else None

    def put(self, room: int, bins: Ints) -> None:
        if room and len(bins):
            if room not in self._bins:
                insort(self._rising, room)
            self._bins.setdefault(room, []).append(bins)

    def take(self, room: int, most: int) -> Ints:
        """Up to ``most`` bins with that room, the oldest first; they are no longer here."""
        (held,) = pieces if len(pieces := self._bins.pop(room)) == 1 else (np.concatenate(pieces),)
        if most < len(held):
            self._bins[room] = [held[most:]]
        else:
            self._rising.remove(room)
        return held[:most]
