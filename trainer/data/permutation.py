"""Pseudo-random permutations computed where they are asked for, without a stored table."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""The finalizer of splitmix64, but for its last shift of 31: every input bit reaches every output bit."""


class Permutation:
    """A bijection on range(size), chosen by `seed`: constant memory, integer arithmetic, equal on every machine.

    A Feistel network permutes the smallest range of 4**n that holds `size`; a value that falls outside is sent
    through again (cycle walking), which takes fewer than four passes on average.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._low = (1 << self._half) - 1
        digest = hashlib.blake2b(str(seed).encode(), digest_size=8 * ROUNDS).digest()
        self._keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(ROUNDS)]

    def block(self, first: int, last: int) -> NDArray[np.int64]:
        """Where first .. last - 1 go, [last - first]. Raises IndexError where they are not in range(size)."""
        if not 0 <= first <= last <= self.size:
            raise IndexError(f"{first} .. {last - 1} are not in range({self.size})")
        values = self._networks(np.arange(first, last, dtype=np.uint64))
        while len(outside := np.flatnonzero(values >= self.size)):
            values[outside] = self._networks(values[outside])
        return values.astype(np.int64)

    def _networks(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        half, low = np.uint64(self._half), np.uint64(self._low)
        left, right = values >> half, values & low
        for key in self._keys:
            mixed = right ^ np.uint64(key)
            for shift, factor in MIX:
                mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
            left, right = right, left ^ ((mixed ^ mixed >> np.uint64(31)) & low)
        return left << half | right


def seed_from(*parts: int | str) -> int:
    """One seed for a combination of numbers and names, such as (seed, source, epoch)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def drawn_places(size: int, count: int, *parts: int) -> list[int]:
    """Different places of range(size), rising: all of them up to `count`, else at most `count` that `parts` choose."""
    if size <= count:
        return list(range(size))
    return sorted({seed_from(*parts, index) % size for index in range(count)})
