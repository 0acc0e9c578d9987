"""Heads over tensor-parallel ranks: every geometry keeps the model's mathematics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.parallel.heads import Heads, lay_out

GEOMETRIES = st.builds(
    lambda key_value, group, tp: (Heads(key_value * group, key_value, 4), tp),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 33),
)


@given(GEOMETRIES)
def test_every_query_head_is_on_one_rank_beside_its_key_value_head(geometry: tuple[Heads, int]) -> None:
    heads, tp = geometry
    layout = lay_out(heads, tp)
    group = heads.query // heads.key_value
    slots = [slot for rank in range(tp) for slot in layout.slots(rank)]
    queries = [query for slot in slots for query in slot.queries]
    assert sorted(queries) == list(range(heads.query))
    assert all(query // group == slot.key_value for slot in slots for query in slot.queries)
    assert all(len(slot.queries) <= layout.queries_per_slot for slot in slots)
    assert layout.padded_queries == tp * layout.queries_per_rank - heads.query >= 0


@given(GEOMETRIES)
def test_key_value_heads_are_different_on_a_rank_and_their_copies_are_numbered(geometry: tuple[Heads, int]) -> None:
    heads, tp = geometry
    layout = lay_out(heads, tp)
    for rank in range(tp):
        local = [slot.key_value for slot in layout.slots(rank)]
        assert len(set(local)) == len(local) == layout.slots_per_rank
    for head in range(heads.key_value):
        holding = [(slot.copy, rank) for rank in range(tp) for slot in layout.slots(rank) if slot.key_value == head]
        assert [copy for copy, _ in sorted(holding)] == list(range(len(holding)))
        assert tuple(rank for _, rank in sorted(holding)) == layout.holders(head)
        assert 1 <= len(holding) <= layout.copies


@given(GEOMETRIES)
def test_without_need_nothing_is_padded_or_copied(geometry: tuple[Heads, int]) -> None:
    heads, tp = geometry
    layout = lay_out(heads, tp)
    assert layout.queries_per_rank >= math.ceil(heads.query / tp)
    if heads.key_value % tp == 0:
        assert (layout.padded_queries, layout.copies) == (0, 1)
        local = heads.key_value // tp
        for rank in range(tp):
            assert [s.key_value for s in layout.slots(rank)] == list(range(rank * local, (rank + 1) * local))
    if tp % heads.key_value == 0 and heads.query % tp == 0:
        assert layout.padded_queries == 0


@pytest.mark.parametrize(
    ("query", "key_value", "tp", "slots", "queries", "padded", "copies"),
    [
        (64, 8, 32, 1, 2, 0, 4),  # DeepSeek 67B, Llama 3 70B
        (32, 32, 8, 4, 4, 0, 1),  # DeepSeek 7B
        (64, 64, 32, 2, 2, 0, 1),  # Llama 65B
        (32, 8, 8, 1, 4, 0, 1),  # Llama 3 8B
        (9, 3, 2, 2, 6, 3, 2),  # SmolLM2: two slots of three queries; one key-value head twice
        (9, 3, 3, 1, 3, 0, 1),
        (9, 3, 4, 1, 3, 3, 2),
        (71, 1, 8, 1, 9, 1, 8),  # Falcon 7B: 71 heads become 72
        (128, 8, 32, 1, 4, 0, 4),  # Falcon 40B
    ],
)
def test_published_geometries(
    query: int, key_value: int, tp: int, slots: int, queries: int, padded: int, copies: int
) -> None:
    layout = lay_out(Heads(query, key_value, 64), tp)
    assert (layout.slots_per_rank, layout.queries_per_rank) == (slots, queries)
    assert (layout.padded_queries, layout.copies) == (padded, copies)


def test_replicated_heads_are_in_neuronx_distributeds_order() -> None:
    """Rank r holds key-value head r % kv_heads; its queries are those of that head's group that nobody else has."""
    layout = lay_out(Heads(8, 2, 4), 4)
    assert [[s.key_value for s in layout.slots(rank)] for rank in range(4)] == [[0], [1], [0], [1]]
    assert [list(layout.slots(rank)[0].queries) for rank in range(4)] == [[0, 1], [4, 5], [2, 3], [6, 7]]
