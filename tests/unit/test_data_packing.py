"""Packing against a reference that walks token by token."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_data_support import write_documents
from trainer.batch import NO_DRAW
from trainer.data.packing import PackedSamples, collate

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
