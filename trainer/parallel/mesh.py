"""Which ranks share what: the parallel axes by name, without globals.

Rank order is neuronx-distributed's, fastest first: tp, cp, dp, pp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

AXES = ("tp", "cp", "dp", "pp")
"""Fastest-varying axis first."""
DATA = ("cp", "dp")
"""The axes whose ranks hold the same weights and see other tokens: gradients are summed over them."""


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
        return self.size(*AXES)

    def size(self, *axes: str) -> int:
        """Number of ranks along an axis, or along several together."""
        return math.prod(int(getattr(self, axis)) for axis in axes)

    def coordinate(self, axis: str, rank: int | None = None) -> int:
        """Position of a rank (this one by default) along an axis."""
        stride = 1
        for name in AXES:
            if name == axis:
                return ((self.rank if rank is None else rank) // stride) % self.size(axis)
            stride *= self.size(name)
        raise KeyError(axis)

    def position(self, *axes: str) -> int:
        """Position of this rank in its group along the axes."""
        return self.group(*axes).index(self.rank)

    def group(self, *axes: str) -> tuple[int, ...]:
        """Ranks that differ from this one along the axes only, in order, this one included."""
        (mine,) = (ranks for ranks in self.groups(*axes) if self.rank in ranks)
        return mine

    def groups(self, *axes: str) -> list[tuple[int, ...]]:
        """All groups along the axes, each in order; every rank is in one of them. The same list on every rank."""
        others = [name for name in AXES if name not in axes]
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world):
            found.setdefault(tuple(self.coordinate(name, rank) for name in others), []).append(rank)
        return sorted(tuple(ranks) for ranks in found.values())
