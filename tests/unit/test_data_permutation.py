"""A bijection for every size, another one for every seed, and the same one for ever."""

from __future__ import annotations

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
    permutation = Permutation(size, seed)
    assert sorted(permutation(i) for i in range(size)) == list(range(size))


def test_bijection_around_powers_of_two() -> None:
    for size in [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097]:
        assert len({Permutation(size, 7)(i) for i in range(size)}) == size


def test_seeds_differ_and_values_never_change() -> None:
    orders = {tuple(Permutation(100, seed)(i) for i in range(100)) for seed in range(200)}
    assert len(orders) == 200
    assert tuple(range(100)) not in orders
    # A changed value here would silently reorder the data of every saved run.
    assert [Permutation(1000, 1234)(i) for i in range(5)] == GOLDEN
    assert seed_from(1, 2, 3) == GOLDEN_SEED


def test_looks_random() -> None:
    size = 10_000
    permutation = Permutation(size, 3)
    order = [permutation(i) for i in range(size)]
    thirds = [0, 0, 0]
    for i in range(size // 10):
        thirds[order[i] * 3 // size] += 1
    assert min(thirds) > 270
    assert sum(b - a == 1 for a, b in itertools.pairwise(order)) < 10


def test_huge_and_out_of_range() -> None:
    permutation = Permutation(10**15, 1)
    assert all(0 <= permutation(i) < 10**15 for i in (0, 1, 10**15 - 1))
    for index in (-1, 10**15):
        with pytest.raises(IndexError):
            permutation(index)
    with pytest.raises(ValueError, match="at least 1"):
        Permutation(0, 1)
