"""The token stream cut into fixed-length samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.batch import IGNORED_LABEL, NO_DRAW, Batch
from trainer.data.stream import TokenStream

Ints = NDArray[np.int64]


class Sample(NamedTuple):
    """One row of a Batch: the same five fields, each int64 of shape [seq_len]."""

    tokens: Ints
    labels: Ints
    positions: Ints
    document_ids: Ints
    keys: Ints


class PackedSamples:
    """Sample i reads tokens i * L .. (i + 1) * L - 1 of the stream and predicts, at each, the one that follows.

    Every token but the stream's first is a target exactly once. The last sample is padded. Nothing is drawn: who trains
    on a sample gives it its keys.
    """

    def __init__(
        self,
        tokens: TokenStream,
        seq_len: int,
        document_mask: bool,
        part: tuple[int, int] | None = None,
    ) -> None:
        """seq_len: L, in tokens. document_mask: restart positions at each document, and drop targets in the next.

        part: the stream is only these tokens, from a document's first to behind one's last; None: all.
        """
        self._tokens = tokens
        self._seq_len = seq_len
        self._document_mask = document_mask
        self._first, self._end = part or (0, tokens.total)

    @property
    def padding(self) -> int:
        """Positions without a token, in all samples: the end of the last one."""
        return -max(0, self._end - self._first - 1) % self._seq_len

    def __len__(self) -> int:
        targets = max(0, self._end - self._first - 1)
        return -(-targets // self._seq_len)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        start = self._first + index * self._seq_len
        stream = self._tokens.slice(start, min(start + self._seq_len + 1, self._end))
        count = len(stream) - 1
        sample = padding_sample(self._seq_len)
        sample.tokens[:count] = stream[:-1]
        sample.labels[:count] = stream[1:]
        sample.positions[:count] = np.arange(count)
        sample.document_ids[:count] = 0
        if self._document_mask:
            self._separate(sample, start, count)
        return sample

    def _separate(self, sample: Sample, start: int, count: int) -> None:
        """Give each document its own positions and id, and drop targets that lie in the next document, in place."""
        places = np.arange(count)
        changes = np.zeros(count, bool)  # whether the next position is in another document
        changes[self._tokens.borders(start, start + count) - start - 1] = True
        begins = np.concatenate([[False], changes[:-1]])
        sample.positions[:count] -= np.maximum.accumulate(np.where(begins, places, 0))
        sample.document_ids[:count] = np.cumsum(begins)  # 0, 1, 2, ... without gaps for empty documents
        sample.labels[:count][changes] = IGNORED_LABEL


def padding_sample(seq_len: int) -> Sample:
    """A row without targets."""
    return Sample(
        tokens=np.zeros(seq_len, np.int64),
        labels=np.full(seq_len, IGNORED_LABEL, np.int64),
        positions=np.zeros(seq_len, np.int64),
        document_ids=np.full(seq_len, -1, np.int64),
        keys=np.full(seq_len, NO_DRAW, np.int64),
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples to a Batch of int64 [samples, seq_len]."""
    return Batch(*(torch.from_numpy(np.stack(rows)) for rows in zip(*samples, strict=True)))
