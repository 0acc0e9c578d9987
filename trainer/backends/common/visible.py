"""Which keys a query may look at, block by block: there is no [queries, keys] tensor until somebody asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

ALL = slice(None)


class Step(NamedTuple):
    """A block of keys and the queries that may look at some of it, or a block of queries and the keys that they may
    look at. finished: how many of the latter, the first ones, have nothing to do with a later block.
    """

    queries: slice
    keys: slice
    finished: int


class Visible(NamedTuple):
    """Queries look at earlier keys and their own, inside their document.

    query_ids: int64 [batch, queries]; key_ids: int64 [batch, keys]: documents; padding (id -1) looks at padding.
    query_at: int64 [queries]; key_at: int64 [keys]: positions in the sample. window: positions that are looked at, the
    own one included; None for all. ordered: both are the whole sample in its order, so that it is known beforehand
    which blocks lie above the diagonal or before the window.
    """

    query_ids: torch.Tensor
    key_ids: torch.Tensor
    query_at: torch.Tensor
    key_at: torch.Tensor
    window: int | None
    ordered: bool

    def mask(self, rows: slice = ALL, keys: slice = ALL) -> torch.Tensor:
        """bool [batch, 1, rows, keys], True where a query may look."""
        here, there = self.query_at[rows].unsqueeze(-1), self.key_at[keys]
        seen = here >= there if self.window is None else (here >= there) & (here < there + self.window)
        same = self.query_ids[:, rows].unsqueeze(-1) == self.key_ids[:, keys].unsqueeze(-2)
        return (same & seen).unsqueeze(1)

    def key_blocks(self, block: int) -> Iterator[Step]:
        """All keys, ``block`` at a time, by what is known beforehand; the last block may be shorter."""
        queries, count = self.query_at.shape[0], self.key_at.shape[0]
        for start in range(0, count, block):
            stop = min(start + block, count)
            first, end = (start, queries) if self.ordered else (0, queries)
            if self.ordered and self.window is not None:
                end = min(queries, stop - 1 + self.window)
            finished = end - first if stop == count else (stop - start) * self.ordered
            yield Step(slice(first, end), slice(start, stop), finished)

    def query_blocks(self, block: int) -> Iterator[Step]:
        """The same of all queries."""
        keys, count = self.key_at.shape[0], self.query_at.shape[0]
        for start in range(0, count, block):
            stop = min(start + block, count)
            end = stop if self.ordered else keys
            first, later = (self._first(query) for query in (start, stop))
            yield Step(slice(start, stop), slice(first, end), end - first if stop == count else later - first)

    def _first(self, query: int) -> int:
        """The first key that it may look at."""
        return max(0, query + 1 - self.window) if self.ordered and self.window is not None else 0
