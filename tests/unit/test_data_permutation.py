"""A bijection for every size, another one for every seed, and the same one for ever."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.permutation import Permutation, seed_from

GOLDEN = [195, 279, 981, 302, 760]
GOLDEN_SEED = 5809300636878265108


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 1 << 70))
def test_bijection(size: int, seed: int) -> None:
    assert sorted(Permutation(size, seed).block(0, size).tolist()) == list(range(size))


def one_by_one(size: int, seed: int, index: int) -> int:
    """The network in Python's own integers: six rounds of splitmix64's finalizer, again until the value is inside."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    digest = hashlib.blake2b(str(seed).encode(), digest_size=48).digest()
    while True:
        left, right = index >> half, index % (1 << half)
        for at in range(0, 48, 8):
            mixed = right ^ int.from_bytes(digest[at : at + 8], "little")
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % (1 << 64)
            left, right = right, left ^ (mixed ^ mixed >> 31) % (1 << half)
        if (index := left << half | right) < size:
            return index


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 50), st.integers(0, 1 << 70), st.data())
def test_a_block_is_the_network_one_by_one(size: int, seed: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = min(size, first + data.draw(st.integers(0, 40)))
    found = Permutation(size, seed).block(first, last).tolist()
    assert found == [one_by_one(size, seed, index) for index in range(first, last)]


def test_bijection_around_powers_of_two() -> None:
    for size in [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097]:
        assert len({*Permutation(size, 7).block(0, size).tolist()}) == size


def test_seeds_differ_and_values_never_change() -> None:
    orders = {tuple(Permutation(100, seed).block(0, 100).tolist()) for seed in range(200)}
    assert len(orders) == 200
    assert tuple(range(100)) not in orders
    # A changed value here would silently reorder the data of every saved run.
    assert Permutation(1000, 1234).block(0, 5).tolist() == GOLDEN
    assert seed_from(1, 2, 3) == GOLDEN_SEED


def test_looks_random() -> None:
    size = 10_000
    order = Permutation(size, 3).block(0, size).tolist()
    thirds = [0, 0, 0]
    for i in range(size // 10):
        thirds[order[i] * 3 // size] += 1
    assert min(thirds) > 270
    assert sum(b - a == 1 for a, b in itertools.pairwise(order)) < 10


def test_huge_and_out_of_range() -> None:
    permutation = Permutation(10**15, 1)
    assert all(0 <= permutation.block(i, i + 1)[0] < 10**15 for i in (0, 1, 10**15 - 1))
    for index in (-1, 10**15):
        with pytest.raises(IndexError):
            permutation.block(index, index + 1)
    with pytest.raises(ValueError, match="at least 1"):
        Permutation(0, 1)
