"""Shares hold from where they come into force; an epoch sees every sample once; the cursor is all there is to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.data.cursor import Cursor, Segment
from trainer.data.mixture import mixtures
from trainer.data.order import GlobalOrder, SourceOrder
from trainer.errors import DataError

Weights = Mapping[str, float]


def order(
    weights: Weights, sizes: Sequence[int] | None = None, seed: int = 1, stages: Sequence[tuple[int, Weights]] = ()
) -> GlobalOrder:
    counts = dict(zip(weights, sizes or [10] * len(weights), strict=True))
    made = {name: SourceOrder(name, seed, [(0, count)]) for name, count in counts.items()}
    return GlobalOrder(mixtures(list(weights), list(weights.values()), stages), made)


def start(*names: str) -> Cursor:
    return Cursor.first(names, [100] * len(names))


def named(weights: Sequence[float]) -> dict[str, float]:
    return {f"s{i}": float(weight) for i, weight in enumerate(weights)}


def off_share(names: Sequence[str], weights: Weights) -> Fraction:
    """The furthest that any source is from its share, over all prefixes."""
    total, furthest = sum(Fraction(weight) for weight in weights.values()), Fraction(0)
    drawn = dict.fromkeys(weights, 0)
    for number, name in enumerate(names, 1):
        drawn[name] += 1
        furthest = max(furthest, *(abs(drawn[w] - Fraction(weights[w]) * number / total) for w in weights))
    return furthest


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), st.integers(1, 250))
def test_every_prefix_keeps_the_weights(weights: list[int], count: int) -> None:
    draws, _ = order(named(weights)).take(start(*named(weights)), count)
    drawn = dict.fromkeys(named(weights), 0)
    for draw in draws:
        assert draw.number == drawn[draw.source]
        drawn[draw.source] += 1
    assert off_share([draw.source for draw in draws], named(weights)) < 1


def test_eight_sources_where_the_largest_deficit_would_stray() -> None:
    test_every_prefix_keeps_the_weights.hypothesis.inner_test([60, 1, 1, 1, 2, 3, 1, 1], 200)  # type: ignore[attr-defined]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_any_cut_gives_the_same_stream(weights: list[float], cuts: list[int], staged: bool) -> None:
    made = named(weights)
    one = order(made, stages=[(7, {"s0": 3.5}), (50, {"s0": 0.5})] if staged else [])
    whole, end = one.take(start(*made), sum(cuts))
    cursor = start(*made)
    pieces = []
    for cut in cuts:
        draws, cursor = one.take(Cursor.from_json(json.loads(json.dumps(cursor.to_json()))), cut)
        pieces += draws
    assert pieces == whole
    assert cursor == end
    cursor = start(*made)
    for cut in cuts:
        cursor = one.skip(cursor, cut)
    assert cursor == end


def test_a_billion_samples_are_skipped_at_once() -> None:
    made = order({"a": 2, "b": 1, "c": 0}, stages=[(10**9, {"c": 3})])
    cursor = made.skip(start("a", "b", "c"), 10**9 + 600)
    assert cursor.per_source == {"a": 2 * 333_333_333 + 1 + 200, "b": 333_333_333 + 100, "c": 300}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 80), st.tuples(*[st.integers(0, 9)] * 3).filter(any)), min_size=2, max_size=4))
def test_other_weights_hold_from_where_they_come_in(parts: list[tuple[int, tuple[int, int, int]]]) -> None:
    """Whether a stage or a resume brings them: nothing is made up for, and no sample is repeated or skipped."""
    shares = [[Fraction(weight, sum(weights)) for weight in weights] for _, weights in parts]
    assume(all(a != b for a, b in pairwise(shares)))
    cursor, draws = start("s0", "s1", "s2"), []
    for count, weights in parts:
        taken, cursor = order(named(weights)).take(cursor, count)
        assert off_share([draw.source for draw in taken], named(weights)) < 1
        draws += taken
    for name in ("s0", "s1", "s2"):
        numbers = [draw.number for draw in draws if draw.source == name]
        assert numbers == list(range(len(numbers)))
    begins = [sum(count for count, _ in parts[:i]) for i in range(len(parts))]
    stages = [(begin, named(weights)) for begin, (_, weights) in zip(begins, parts, strict=True)]
    staged, _ = order(stages[0][1], stages=stages[1:]).take(start("s0", "s1", "s2"), len(draws))
    assert staged == draws


def test_a_resting_source_goes_on_where_it_was() -> None:
    one = order({"a": 1.0, "b": 1.0}, stages=[(10, {"b": 0.0}), (30, {"b": 3.0})])
    draws, _ = one.take(start("a", "b"), 50)
    assert {draw.source for draw in draws[10:30]} == {"a"}
    assert [draw.number for draw in draws[30:] if draw.source == "b"] == [*range(5, 20)]


def test_neither_other_sources_nor_their_order_change_a_sources_samples() -> None:
    alone, beside = order({"a": 1.0}), order({"b": 1.0, "a": 1.0})
    first = [alone.sample(draw) for draw in alone.take(start("a"), 20)[0]]
    second = [beside.sample(draw) for draw in beside.take(start("b", "a"), 40)[0] if draw.source == "a"]
    assert first == second
    there, back = (order(named).take(start(*named), 40)[0] for named in ({"a": 1.0, "b": 1.0}, {"b": 1.0, "a": 1.0}))
    assert there == back


def test_epochs() -> None:
    one = order({"a": 3.0, "b": 1.0}, sizes=[7, 5])
    draws, cursor = one.take(start("a", "b"), 4 * 7)
    first = [one.sample(draw) for draw in draws if draw.source == "a"]
    epochs = [first[i : i + 7] for i in range(0, 21, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (cursor.drawn, cursor.per_source) == (28, {"a": 21, "b": 7})
    assert one.epochs(cursor.per_source) == {"a": 3.0, "b": 1.4}
    other = order({"a": 3.0, "b": 1.0}, sizes=[7, 5], seed=2)
    assert first != [other.sample(draw) for draw in draws if draw.source == "a"]


def test_sources_do_not_share_a_permutation() -> None:
    one = order({"a": 1.0, "b": 1.0}, sizes=[50, 50])
    draws, _ = one.take(start("a", "b"), 100)
    assert [one.sample(d) for d in draws if d.source == "a"] != [one.sample(d) for d in draws if d.source == "b"]


def test_what_lies_ahead() -> None:
    one = order({"a": 1.0, "b": 3.0}, stages=[(40, {"a": 3.0, "b": 1.0}), (80, {"b": 0.0})])
    cursor = one.take(start("a", "b"), 20)[1]
    counts = one.take(cursor, 80)[1].per_source
    for name, expected in one.ahead(cursor, 100).items():
        assert abs(expected - counts[name]) <= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=4), st.integers(1, 12), st.integers(0, 60))
def test_each_sample_of_each_epoch_once_while_text_is_appended(
    later: list[tuple[int, int]], first: int, after: int
) -> None:
    """Against an epoch kept as a set: what comes while one is under way belongs to it."""
    growth, left, total, number, seen = [(0, first)], set(range(first)), first, 0, 0
    for drawn, more in [*later, (after, 0)]:
        made = SourceOrder("a", 1, growth)
        for _ in range(drawn):
            left = left or set(range(total))
            left.remove(made(number))
            seen, number = seen + (not left), number + 1
            assert made.epochs(number) == pytest.approx(seen + ((total - len(left)) / total if left else 0))
        left |= set(range(total, total + more)) if left else set()
        total += more
        growth.append((number, more))


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"drawn": 0},
        {"drawn": "1"},
        {"drawn": 2},
        {"per_source": {"a": -1, "b": 2}},
        {"per_source": {"a": True, "b": 0}},
        {"shares": {"a": "1/2"}},
        {"shares": {"a": "1/2", "b": "1/3"}},
        {"shares": {"a": "1/0", "b": "1"}},
        {"since": {"a": 0}},
        {"since": {"a": 2, "b": 0}},
        {"segments": {"a": [[0, 9]]}},
        {"segments": {"a": [[0, 9]], "b": []}},
        {"segments": {"a": [[1, 9]], "b": [[0, 9]]}},
        {"segments": {"a": [[0, 9], [2, 9]], "b": [[0, 9]]}},
        {"segments": {"a": [[0]], "b": [[0, 9]]}},
        {"segments": 3},
    ],
)
def test_broken_cursors(broken: dict[str, object]) -> None:
    sound = {
        "drawn": 1,
        "per_source": {"a": 1, "b": 0},
        "shares": {"a": "1/2", "b": "1/2"},
        "since": {"a": 0, "b": 0},
        "segments": {"a": [[0, 9], [1, 4]], "b": [[0, 9]]},
    }
    assert Cursor.from_json(sound).segments["a"] == [Segment(0, 9), Segment(1, 4)]
    with pytest.raises(DataError) as caught:
        Cursor.from_json(sound | broken if broken else {})
    assert caught.value.problems[0].key == "cursor"


def test_foreign_cursors() -> None:
    with pytest.raises(DataError, match=r"s0, s1") as caught:
        order({"s0": 1.0}).take(start("s0", "s1"), 1)
    assert caught.value.problems[0].key == "data.sources"
    with pytest.raises(DataError, match="older"):
        Cursor.from_json({"drawn": 1, "per_source": {"a": 1}})
    with pytest.raises(ValueError, match="positive"):
        order({"a": 0.0})
    with pytest.raises(ValueError, match="at least one sample"):
        order({"a": 1.0}, sizes=[0])
