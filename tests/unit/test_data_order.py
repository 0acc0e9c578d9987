"""Every prefix keeps the weights; every epoch sees every sample once; the cursor is all there is to know."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.order import Cursor, GlobalOrder
from trainer.errors import DataError


def order(weights: list[float], sizes: list[int] | None = None, seed: int = 1) -> GlobalOrder:
    return GlobalOrder([f"s{i}" for i in range(len(weights))], weights, sizes or [10] * len(weights), seed)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), st.integers(1, 250))
def test_every_prefix_keeps_the_weights(weights: list[int], count: int) -> None:
    draws, _ = order([float(weight) for weight in weights]).take(order([*map(float, weights)]).start(), count)
    drawn = [0] * len(weights)
    for number, draw in enumerate(draws, 1):
        assert draw.number == drawn[draw.source]
        drawn[draw.source] += 1
        for have, weight in zip(drawn, weights, strict=True):
            assert abs(have - Fraction(weight * number, sum(weights))) < 1


def test_eight_sources_where_the_largest_deficit_would_stray() -> None:
    test_every_prefix_keeps_the_weights.hypothesis.inner_test([60, 1, 1, 1, 2, 3, 1, 1], 200)  # type: ignore[attr-defined]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.lists(st.integers(0, 40), max_size=6))
def test_any_cut_gives_the_same_stream(weights: list[float], cuts: list[int]) -> None:
    whole, end = order(weights).take(order(weights).start(), sum(cuts))
    cursor = order(weights).start()
    pieces = []
    for cut in cuts:
        draws, cursor = order(weights).take(Cursor.from_json(json.loads(json.dumps(cursor.to_json()))), cut)
        pieces += draws
    assert pieces == whole
    assert cursor == end


def test_epochs() -> None:
    one = order([3.0, 1.0], sizes=[7, 5])
    draws, cursor = one.take(one.start(), 4 * 7)
    first = [one.sample(draw) for draw in draws if draw.source == 0]
    epochs = [first[i : i + 7] for i in range(0, 21, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert cursor == Cursor(28, {"s0": 21, "s1": 7})
    other = order([3.0, 1.0], sizes=[7, 5], seed=2)
    assert first != [other.sample(draw) for draw in draws if draw.source == 0]


def test_sources_do_not_share_a_permutation() -> None:
    one = order([1.0, 1.0], sizes=[50, 50])
    draws, _ = one.take(one.start(), 100)
    assert [one.sample(d) for d in draws if d.source == 0] != [one.sample(d) for d in draws if d.source == 1]


def test_foreign_or_broken_cursors() -> None:
    with pytest.raises(DataError, match=r"s0, s1") as caught:
        order([1.0]).take(Cursor(0, {"s0": 0, "s1": 0}), 1)
    assert caught.value.problems[0].key == "data.sources"
    for value in [{}, {"drawn": 1, "per_source": {"a": 2}}, {"drawn": "1", "per_source": {}}, {"drawn": 0}]:
        with pytest.raises(DataError):
            Cursor.from_json(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        order([0.0])
