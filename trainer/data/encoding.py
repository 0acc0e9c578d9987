"""Texts to arrays of ids, a batch at a time: what is held at once is bounded, and no id depends on how it was cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.cutting import PIECE, Cutter
from trainer.data.tokenizer import Tokenizer

BATCH_DOCUMENTS, BATCH_CHARACTERS = 512, 1 << 19
"""A batch ends at the first of these."""
Encoded = tuple[str, NDArray[np.int32]]


def encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Each text with its ids and the end of document."""
    cutter = None
    batch: list[str] = []
    characters = 0
    for text in texts:
        if len(text) > 2 * PIECE:
            cutter = cutter or Cutter(tokenizer.inner)
            yield from _encoded(batch, tokenizer)
            yield text, _long(text, tokenizer, cutter)
            batch, characters = [], 0
            continue
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield from _encoded(batch, tokenizer)
            batch, characters = [], 0
    yield from _encoded(batch, tokenizer)


def _encoded(batch: list[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
        ids.append(tokenizer.eod)
        yield text, np.array(ids, np.int32)


def _long(text: str, tokenizer: Tokenizer, cutter: Cutter) -> NDArray[np.int32]:
    """The ids of one text, in pieces that are together as large as a batch."""
    found = bytearray()  # grows in place: all parts and their concatenation would be there at once
    for batch in _batches(cutter.pieces(text)):
        for ids in tokenizer.encode_batch(batch):
            found += np.array(ids, np.int32).tobytes()
    found += np.array([tokenizer.eod], np.int32).tobytes()
    return np.frombuffer(found, np.int32)


def _batches(pieces: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) * PIECE >= BATCH_CHARACTERS:
            yield batch
            batch = []
    if batch:
        yield batch
