"""Texts to arrays of ids, a batch at a time: what is held at once is bounded, and no id depends on how it was cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.tokenizer import Tokenizer

BATCH_DOCUMENTS, BATCH_CHARACTERS = 512, 1 << 20
"""A batch ends at the first of these. The encoder holds about 100 bytes for each token of it."""


def encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each text with its ids and the end of document."""
    for batch in _batches(texts):
        for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
            yield text, np.array([*ids, tokenizer.eod], np.int64)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Enough texts at a time to keep the encoder's threads busy, few enough to stay small in memory."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
