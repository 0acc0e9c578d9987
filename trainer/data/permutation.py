"""Pseudo-random permutations computed index by index, without a stored table."""

from __future__ import annotations

import hashlib

ROUNDS = 6
MASK = (1 << 64) - 1


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

    def __call__(self, index: int) -> int:
        """Where `index` goes. Raises IndexError outside range(size)."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is outside range({self.size})")
        value = self._network(index)
        while value >= self.size:
            value = self._network(value)
        return value

    def _network(self, value: int) -> int:
        left, right = value >> self._half, value & self._low
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._low)
        return left << self._half | right


def seed_from(*parts: int | str) -> int:
    """One seed for a combination of numbers and names, such as (seed, source, epoch)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def drawn_places(size: int, count: int, *parts: int) -> list[int]:
    """Different places of range(size), rising: all of them up to `count`, else at most `count` that `parts` choose."""
    if size <= count:
        return list(range(size))
    return sorted({seed_from(*parts, index) % size for index in range(count)})


def _mix(value: int) -> int:
    """The finalizer of splitmix64: every input bit reaches every output bit."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31
