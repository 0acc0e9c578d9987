"""Which ranks share what: the parallel axes by name, without globals.

Rank order is neuronx-distributed's, fastest first: tp, cp, dp, pp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

AXES = ("tp", "cp", "dp", "pp")
"""Fastest-varying axis first."""


@dataclass(frozen=True)
class Mesh:
    """Sizes of the axes and this process's rank among all of them."""

    rank: int = 0
    tp: int = 1
    cp: int = 1
    dp: int = 1
    pp: int = 1

    @property
    def world(self) -> int:
        """Number of ranks."""
        return math.prod(self.size(axis) for axis in AXES)

    def size(self, axis: str) -> int:
        """Number of ranks along an axis."""
        return int(getattr(self, axis))

    def coordinate(self, axis: str, rank: int | None = None) -> int:
        """Position of a rank (this one by default) along an axis."""
        stride = 1
        for name in AXES:
            if name == axis:
                return ((self.rank if rank is None else rank) // stride) % self.size(axis)
            stride *= self.size(name)
        raise KeyError(axis)

    def group(self, axis: str) -> tuple[int, ...]:
        """Ranks that differ from this one along the axis only, in order, this one included."""
        others = [name for name in AXES if name != axis]
        return tuple(
            rank
            for rank in range(self.world)
            if all(self.coordinate(name, rank) == self.coordinate(name) for name in others)
        )

    def groups(self, axis: str) -> list[tuple[int, ...]]:
        """All groups of an axis, each in order; every rank is in one of them. The same list on every rank."""
        groups = {replace(self, rank=rank).group(axis) for rank in range(self.world)}
        return sorted(groups)
