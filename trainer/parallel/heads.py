"""Attention heads over the tensor-parallel ranks: which rank holds which, with replicas and padding where they do not
divide.

Every rank gets the same number of *slots*; a slot is one key-value head and room for some of its query heads. Slot i
(counted over all ranks) holds key-value head i modulo the number of key-value heads, so heads are replicated in turns:
with as many slots as heads that is the plain contiguous split, and with more it is neuronx-distributed's order (rank r
holds head r % kv_heads).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """Attention's geometry: numbers of query and key-value heads, and the size of one."""

    query: int
    key_value: int
    size: int


@dataclass(frozen=True)
class Slot:
    """One key-value head on one rank, and the query heads that use this copy of it (none: all padding)."""

    key_value: int
    copy: int
    queries: range


@dataclass(frozen=True)
class HeadLayout:
    """Heads over ``tp`` ranks. Make it with ``lay_out``."""

    heads: Heads
    tp: int
    slots_per_rank: int
    queries_per_slot: int

    def slots(self, rank: int) -> tuple[Slot, ...]:
        """The slots of a tensor-parallel rank, in local order; their key-value heads are all different."""
        first = rank * self.slots_per_rank
        return tuple(self._slot(index) for index in range(first, first + self.slots_per_rank))

    def _slot(self, index: int) -> Slot:
        copy, head = divmod(index, self.heads.key_value)
        group = self.heads.query // self.heads.key_value
        begin = min(copy * self.queries_per_slot, group)
        end = min(begin + self.queries_per_slot, group)
        return Slot(head, copy, range(head * group + begin, head * group + end))

    @property
    def queries_per_rank(self) -> int:
        """Query heads that each rank computes, padding included."""
        return self.slots_per_rank * self.queries_per_slot

    @property
    def padded_queries(self) -> int:
        """Query heads over all ranks that are padding."""
        return self.tp * self.queries_per_rank - self.heads.query

    @property
    def copies(self) -> int:
        """The most ranks that hold one key-value head."""
        return -(-self.tp * self.slots_per_rank // self.heads.key_value)

    def __str__(self) -> str:
        copies = "1 copy" if self.copies == 1 else f"up to {self.copies} copies"
        padding = (
            f"{self.padded_queries} query heads over all ranks are padding" if self.padded_queries else "no padding"
        )
        return (
            f"a rank computes {self.queries_per_rank} of {self.heads.query} query heads with {self.slots_per_rank} of"
            f" {self.heads.key_value} key-value heads ({copies} of each, {padding})"
        )

    def holders(self, key_value: int) -> tuple[int, ...]:
        """Tensor-parallel ranks that hold a key-value head, in order."""
        slots = range(key_value, self.tp * self.slots_per_rank, self.heads.key_value)
        return tuple(index // self.slots_per_rank for index in slots)


def lay_out(heads: Heads, tp: int) -> HeadLayout:
    """The layout with the fewest query heads a rank, and among those the fewest key-value heads.

    Each slot count is tried: with n slots a rank every key-value head has at least tp * n // kv_heads copies, which
    share its query heads.
    """
    group = heads.query // heads.key_value
    candidates = []
    for slots in range(1, heads.key_value + 1):
        copies = tp * slots // heads.key_value
        if copies:
            queries = math.ceil(group / copies)
            candidates.append((slots * queries, slots, queries))
    _, slots, queries = min(candidates)
    return HeadLayout(heads, tp, slots, queries)
