"""Whole documents put together into samples of a fixed length, so that little of it is padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.batch import IGNORED_LABEL
from trainer.data.binning import best_fit_decreasing
from trainer.data.packing import Ints, Sample, Samples, padding_rows
from trainer.data.stream import TokenStream
from trainer.errors import DataError, Problem

BLOCK = 1 << 18
"""Documents that are packed together: what a plan takes besides itself, and how far documents are moved."""
MOST = 10_000_000
"""Documents and windows that are planned: 12 bytes each, for as long as a run goes on, on every rank."""


class Fit(NamedTuple):
    """What packing came to.

    samples: rows. padding: their positions without a token. documents: what there was to pack. split: those that were
    cut into windows. dropped: those that were left out for their length. bare: those of one token or none, in which
    there is nothing to predict. truncated: those of which the first window is kept. untrained: those that were left out
    because nothing of it is trained on. lost: tokens of documents that were left out or cut off.
    """

    samples: int
    padding: int
    documents: int
    split: int
    dropped: int
    bare: int
    truncated: int = 0
    untrained: int = 0
    lost: int = 0

    @classmethod
    def of(cls, parts: Iterable[Fit]) -> Fit:
        """Of parts together."""
        return cls(*(sum(column) for column in zip(*parts, strict=True)))

    def describe(self, seq_len: int) -> str:
        """For people, in a line."""
        share = self.padding / max(1, self.samples * seq_len)
        parts = [f"{self.documents:,} documents in {self.samples:,} samples of {seq_len:,} tokens, {share:.2%} padding"]
        if self.split:
            parts.append(f"{self.split:,} documents split (longer than a sample)")
        if self.dropped:
            parts.append(f"{self.dropped:,} documents DROPPED (longer than a sample, data.long_documents=drop)")
        if self.truncated:
            parts.append(f"{self.truncated:,} documents TRUNCATED (longer than a sample, data.long_documents=truncate)")
        if self.untrained:
            parts.append(
                f"{self.untrained:,} documents DROPPED (nothing to train on in their first {seq_len:,} tokens)"
            )
        if self.lost:
            parts.append(f"{self.lost:,} tokens lost")
        if self.bare:
            parts.append(f"{self.bare:,} documents of one token left out (nothing to predict)")
        return "; ".join(parts)


class _Pieces(NamedTuple):
    """Runs of tokens that are read together, in the order of the samples. starts: offsets in the stream, int64.

    lengths: positions that each takes, int32. counts: pieces of each sample.
    """

    starts: Ints
    lengths: NDArray[np.int32]
    counts: Ints


class FittedSamples(Samples):
    """Samples of whole documents, by best-fit-decreasing within blocks of 262,144 documents.

    A document of n tokens takes n - 1 positions, at each of which the next token is the target: its last token is only
    a target, its first is none. One of more positions than a sample has is split into windows, of which the last is
    packed, or dropped. Every other token is a target exactly once, in every epoch. Positions restart with each piece;
    padding is at the end of a sample. The plan is a function of the lengths alone. fit: what it came to.
    """

    def __init__(
        self, tokens: TokenStream, seq_len: int, long_documents: str = "split", part: tuple[int, int] | None = None
    ) -> None:
        """long_documents: split, truncate or drop. part: as PackedSamples has it. Raises DataError where there is too
        much.
        """
        self._tokens, self._seq_len, self._long = tokens, seq_len, long_documents
        first, end = part or (0, tokens.total)
        self._first, self._last = tokens.document_at(first), tokens.document_at(end)
        windows = (end - first) // seq_len if long_documents == "split" else 0
        self._refuse_above_most(max(self._last - self._first, windows))
        self._counted = Counter(dict.fromkeys(("split", "dropped", "bare", "truncated", "untrained", "lost"), 0))
        self._counted["documents"] = self._last - self._first
        planned = list(self._plan())
        self._starts, self._lengths, counts = (np.concatenate(column) for column in zip(*planned, strict=True))
        self._refuse_above_most(len(self._starts))
        self._bounds = np.concatenate([[0], np.cumsum(counts)])
        padding = len(counts) * seq_len - int(self._lengths.sum(dtype=np.int64))
        self.fit = Fit(samples=len(counts), padding=padding, **self._counted)

    @property
    def padding(self) -> int:
        """Positions without a token, in all samples."""
        return self.fit.padding

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def rows(self, indices: Ints) -> Sample:
        found, every = padding_rows(len(indices), self._seq_len), np.arange(self._seq_len)
        firsts, counts = self._bounds[indices], self._bounds[indices + 1] - self._bounds[indices]
        pieces = np.arange(counts.sum()) + np.repeat(firsts - np.cumsum(counts) + counts, counts)
        lengths = self._lengths[pieces].astype(np.int64)
        read = self._tokens.runs(self._starts[pieces], lengths + 1)
        edges = np.cumsum(lengths + 1)
        tokens, labels = np.delete(read, edges - 1), np.delete(read, edges - lengths - 1)
        untrained = None
        if self._tokens.masked:
            trained = self._tokens.trained(self._starts[pieces], lengths + 1)
            untrained = ~np.delete(trained, edges - lengths - 1)
        taken, piece = 0, iter(lengths.tolist())
        for row, count in enumerate(counts.tolist()):
            place = 0
            for number in range(count):
                length = next(piece)
                end = place + length
                found.positions[row, place:end], found.document_ids[row, place:end] = every[:length], number
                place = end
            used = slice(taken, taken + place)
            found.tokens[row, :place], found.labels[row, :place] = tokens[used], labels[used]
            if untrained is not None:
                found.labels[row, :place][untrained[used]] = IGNORED_LABEL
            taken += place
        return found

    def _plan(self) -> Iterator[_Pieces]:
        yield _Pieces(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))
        for first in range(self._first, self._last, BLOCK):
            edges = self._tokens.starts(first, min(first + BLOCK, self._last))
            yield _packed(*self._cut(edges[:-1], np.diff(edges) - 1), self._seq_len)

    def _cut(self, starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Starts and lengths of what documents are cut into, none of them above the length of a sample."""
        long, bare = lengths > self._seq_len, lengths < 1
        kept = ~bare & ~(long & (self._long == "drop"))
        self._counted["dropped" if self._long == "drop" else "split"] += int(long.sum()) * (self._long != "truncate")
        self._counted["bare"] += int(bare.sum())
        self._counted["lost"] += int((lengths[~kept & long] + 1).sum())
        if self._long == "truncate":
            kept, lengths = self._truncated(starts, lengths, kept, np.flatnonzero(long))
        starts, lengths = starts[kept], lengths[kept]
        windows = -(-lengths // self._seq_len)
        numbers = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
        offsets = numbers * self._seq_len
        return np.repeat(starts, windows) + offsets, np.minimum(np.repeat(lengths, windows) - offsets, self._seq_len)

    def _truncated(
        self, starts: Ints, lengths: Ints, kept: NDArray[np.bool_], long: Ints
    ) -> tuple[NDArray[np.bool_], Ints]:
        """Which documents are kept, and their lengths. long: the numbers of those that are cut off."""
        for number in long.tolist() if self._tokens.masked else []:
            first = self._tokens.trained(starts[number : number + 1], np.array([self._seq_len + 1]))
            kept[number] = first[1:].any()
        cut = kept[long]
        self._counted["truncated"] += int(cut.sum())
        self._counted["untrained"] += int((~cut).sum())
        self._counted["lost"] += int((lengths[long[cut]] - self._seq_len).sum() + (lengths[long[~cut]] + 1).sum())
        return kept, np.minimum(lengths, self._seq_len)

    def _refuse_above_most(self, count: int) -> None:
        if count > MOST:
            rule = f"plans at most {MOST:,} documents or windows of a source; there are {count:,}"
            remedy = "data.packing=contiguous needs no plan; or train on fewer documents"
            raise DataError(Problem("data.packing", "best_fit", rule, remedy))


def _packed(starts: Ints, lengths: Ints, capacity: int) -> _Pieces:
    bins, count = best_fit_decreasing(lengths, capacity)
    order = np.argsort(bins, kind="stable")  # inside a sample in the order of the stream
    return _Pieces(starts[order], lengths[order].astype(np.int32), np.bincount(bins, minlength=count))
