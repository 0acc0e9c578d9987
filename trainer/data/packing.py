"""The token stream cut into fixed-length samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.batch import IGNORED_LABEL, NO_DRAW, Batch
from trainer.data.stream import TokenStream

Ints = NDArray[np.int64]


class Sample(NamedTuple):
    """One row of a Batch: the same five fields, each int64 of shape [seq_len]; of several rows [rows, seq_len]."""

    tokens: Ints
    labels: Ints
    positions: Ints
    document_ids: Ints
    keys: Ints


class Samples(ABC):
    """What has samples by index. Nothing is drawn: who trains on a sample gives it its keys."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def rows(self, indices: Ints) -> Sample:
        """Those samples, each of 0 .. len - 1, made together: fields of [indices, seq_len] that nobody else holds,
        but for the keys.
        """

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return Sample(*(field[0] for field in self.rows(np.array([index]))))


class PackedSamples(Samples):
    """Sample i reads tokens i * L .. (i + 1) * L - 1 of the stream and predicts, at each, the one that follows.

    Every token but the stream's first is a target exactly once. The last sample is padded.
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
        self.seq_len = seq_len
        self._document_mask = document_mask
        self._first, self._end = part or (0, tokens.total)

    @property
    def padding(self) -> int:
        """Positions without a token, in all samples: the end of the last one."""
        return -max(0, self._end - self._first - 1) % self.seq_len

    def __len__(self) -> int:
        targets = max(0, self._end - self._first - 1)
        return -(-targets // self.seq_len)

    def rows(self, indices: Ints) -> Sample:
        length = self.seq_len
        starts = self._first + indices * length
        counts = np.minimum(length, self._end - 1 - starts)
        read = self._tokens.runs(starts, counts + 1)
        short = np.flatnonzero(counts < length).tolist()
        if short:  # whatever stands there becomes padding
            gaps = np.repeat(np.cumsum(counts + 1), length - counts)
            read = np.insert(read, gaps, 0)
        read = read.reshape(-1, length + 1)
        tokens, labels = read[:, :-1].astype(np.int64), read[:, 1:].astype(np.int64)
        if self._tokens.masked:
            trained = self._tokens.trained(starts, counts + 1)
            trained = np.insert(trained, gaps, False) if short else trained
            labels[~trained.reshape(-1, length + 1)[:, 1:]] = IGNORED_LABEL
        begins = np.arange(0, len(indices) * length, length)  # places in all rows, one behind the other
        if self._document_mask:
            row, place = self._tokens.borders_of(starts, starts + counts)
            labels[row, place - 1] = IGNORED_LABEL  # what follows is in another document
            inside = place < counts[row]
            begins = np.sort(np.concatenate([begins, begins[row[inside]] + place[inside]]))
        positions, ids = _numbered(begins, len(indices), length)
        for number in short:
            fields = (tokens[number], labels[number], positions[number], ids[number], ids[number])
            _pad(Sample(*fields), int(counts[number]))
        return Sample(tokens, labels, positions, ids, _undrawn(*tokens.shape))


@lru_cache(maxsize=4)
def _undrawn(rows: int, length: int) -> Ints:
    """Keys of samples for which nothing is drawn: all batches have the same ones, and nobody writes to them."""
    return np.full((rows, length), NO_DRAW, np.int64)


def _numbered(begins: Ints, rows: int, length: int) -> tuple[Ints, Ints]:
    """Positions and numbers of documents in each row, both [rows, length]. begins: where one or a row begins, rising.

    Numbers are 0, 1, 2, ... without gaps for empty documents.
    """
    every, number = np.arange(length), 0
    positions, numbers = np.empty(rows * length, np.int64), np.empty(rows * length, np.int64)
    for begin, end in pairwise([*begins.tolist(), rows * length]):
        number = number + 1 if begin % length else 0
        positions[begin:end], numbers[begin:end] = every[: end - begin], number
    return positions.reshape(rows, length), numbers.reshape(rows, length)


def _pad(row: Sample, start: int) -> None:
    """Make the places from ``start`` on padding, in place; keys are not touched."""
    row.tokens[start:], row.labels[start:] = 0, IGNORED_LABEL
    row.positions[start:], row.document_ids[start:] = 0, -1


def scattered(parts: Sequence[tuple[Ints, Sample]]) -> Sample:
    """Rows from several places put together: the places of each part's rows among them, and its rows."""
    if len(parts) == 1:
        return parts[0][1]
    count = sum(len(places) for places, _ in parts)
    whole = Sample(*(np.empty((count, field.shape[1]), np.int64) for field in parts[0][1]))
    for places, rows in parts:
        for target, field in zip(whole, rows, strict=True):
            target[places] = field
    return whole


def padding_sample(seq_len: int) -> Sample:
    """A row without targets."""
    return Sample(*(field[0] for field in padding_rows(1, seq_len)))


def padding_rows(rows: int, seq_len: int) -> Sample:
    """Rows without targets."""
    values = (0, IGNORED_LABEL, 0, -1, NO_DRAW)
    return Sample(*(np.full((rows, seq_len), value, np.int64) for value in values))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples to a Batch of int64 [samples, seq_len]."""
    return Batch(*(torch.from_numpy(np.stack(rows)) for rows in zip(*samples, strict=True)))
