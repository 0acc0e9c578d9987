"""Packing against a reference that walks token by token."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.test_data_support import write_documents
from trainer.batch import NO_DRAW
from trainer.data import stream
from trainer.data.packing import PackedSamples, collate
from trainer.data.stream import TokenStream

Row = tuple[list[int], list[int], list[int], list[int]]


def reference(documents: list[list[int]], length: int, mask: bool) -> list[Row]:
    stream = [(token, d) for d, document in enumerate(documents) for token in document]
    rows = []
    begin = 0
    while begin < len(stream) - 1:
        tokens, labels, positions, ids = [], [], [], []
        position = number = 0
        for place in range(begin, begin + length):
            if place >= len(stream) - 1:
                tokens.append(0)
                labels.append(-100)
                positions.append(0)
                ids.append(-1)
                continue
            token, document = stream[place]
            following, next_document = stream[place + 1]
            if mask and place > begin and stream[place - 1][1] != document:
                position, number = 0, number + 1
            tokens.append(token)
            labels.append(-100 if mask and next_document != document else following)
            positions.append(position)
            ids.append(number)
            position += 1
        rows.append((tokens, labels, positions, ids))
        begin += length
    return rows


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), max_size=12),
    st.integers(1, 17),
    st.booleans(),
)
def test_like_the_reference(documents: list[list[int]], length: int, mask: bool) -> None:
    with TemporaryDirectory() as directory:
        packed = PackedSamples(write_documents(Path(directory) / "x", documents), length, mask)
        expected = reference(documents, length, mask)
        assert len(packed) == len(expected)
        assert [tuple(field.tolist() for field in packed[i][:4]) for i in range(len(packed))] == expected
        assert all((packed[i].keys == NO_DRAW).all() for i in range(len(packed)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), min_size=1, max_size=9), min_size=1),
    st.integers(1, 17),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_rows_made_together(shards: list[list[list[int]]], length: int, known: bool, random: Random) -> None:
    """In any order, over shards of two types, with the borders in memory and looked for in the index."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "KNOWN", 1000 if known else 0)
        opened = [
            write_documents(Path(directory) / f"{n}", shard, 300 if n % 2 else 70_000) for n, shard in enumerate(shards)
        ]
        packed = PackedSamples(TokenStream.chained(opened, 300), length, document_mask=True)
        expected = reference([document for shard in shards for document in shard], length, mask=True)
        assume(len(packed))
        indices = random.sample(range(len(packed)), len(packed)) * 2
        rows = packed.rows(np.array(indices, np.int64))
        found = zip(*(field.tolist() for field in rows[:4]), strict=True)
        assert list(found) == [tuple(expected[index]) for index in indices]


def test_every_target_once(tmp_path: Path) -> None:
    documents = [list(range(i, i + 7)) for i in range(0, 70, 7)]
    packed = PackedSamples(write_documents(tmp_path / "x", documents), 8, document_mask=False)
    labels = [label for i in range(len(packed)) for label in packed[i].labels.tolist() if label != -100]
    assert labels == list(range(1, 70))


def test_collate(tmp_path: Path) -> None:
    packed = PackedSamples(write_documents(tmp_path / "x", [list(range(50))]), 8, document_mask=True)
    batch = collate([packed[0], packed[2]])
    assert all(field.shape == (2, 8) and str(field.dtype) == "torch.int64" for field in batch)
    assert batch.tokens[1].tolist() == list(range(16, 24))
    with pytest.raises(IndexError):
        packed[len(packed)]
