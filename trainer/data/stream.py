"""Documents of one or several .bin/.idx pairs as one stream of tokens, without a copy."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.shard import CACHE, IndexedShard

KNOWN = 1 << 17
"""Documents of a stream up to which it keeps in memory where they begin: 1 MiB, read at the first sample. Where there
are more, each sample's are looked for in the index."""
OTHER_TOKENIZER = "set data.tokenizer.path to the tokenizer that made these files"


@dataclass(frozen=True)
class Span:
    """Neighbouring documents of a shard: first .. last - 1. start, stop: their tokens' offsets in the shard."""

    shard: IndexedShard
    first: int
    last: int
    start: int
    stop: int

    @classmethod
    def of(cls, shard: IndexedShard, first: int, last: int) -> Span:
        """The documents first .. last - 1."""
        return cls(shard, first, last, shard.start_of(first), shard.start_of(last))


class TokenStream:
    """Spans of documents, end to end. documents: how many there are. total: their tokens.

    masked: whether some of them may not be trained on.
    Whatever is asked for costs the same, however many documents there are: only the number of spans counts.
    """

    def __init__(self, spans: Iterable[Span], ids: int | None = None) -> None:
        """ids: how many the tokenizer has; tokens that are none of them raise DataError when they are read."""
        self.spans = [span for span in spans if span.first < span.last]
        self.ids = ids
        self._documents = list(accumulate((span.last - span.first for span in self.spans), initial=0))
        self._offsets = list(accumulate((span.stop - span.start for span in self.spans), initial=0))
        self.documents, self.total = self._documents[-1], self._offsets[-1]
        self.masked = any(span.shard.masked for span in self.spans)

    @classmethod
    def open(cls, prefix: str | Path, key: str = CACHE, ids: int | None = None) -> TokenStream:
        """All documents of one pair. Raises DataError; key: that its problems are reported under."""
        return cls.over([IndexedShard(prefix, key)], ids)

    @classmethod
    def over(cls, shards: Iterable[IndexedShard], ids: int | None = None) -> TokenStream:
        """All documents of these shards, in order."""
        return cls((Span.of(shard, 0, shard.documents) for shard in shards), ids)

    @classmethod
    def chained(cls, streams: Iterable[TokenStream], ids: int | None = None) -> TokenStream:
        """All documents of these streams, in order."""
        return cls((span for stream in streams for span in stream.spans), ids)

    def document(self, index: int) -> NDArray[np.int64]:
        """Ids of one document, [its length]."""
        if not 0 <= index < self.documents:
            raise IndexError(f"document {index} of {self.documents}")
        return self.slice(self.start_of(index), self.start_of(index + 1))

    def start_of(self, document: int) -> int:
        """Offset of a document's first token; `total` for the one behind the last."""
        if document >= self.documents:
            return self.total
        place = bisect_right(self._documents, document) - 1
        span = self.spans[place]
        inside = span.shard.start_of(span.first + document - self._documents[place])
        return self._offsets[place] + inside - span.start

    def document_at(self, token: int) -> int:
        """The document that a token belongs to; ``documents`` for an offset behind the last."""
        if token >= self.total:
            return self.documents
        place = bisect_right(self._offsets, token) - 1
        span = self.spans[place]
        return self._documents[place] + span.shard.document_at(span.start + token - self._offsets[place]) - span.first

    def starts(self, first: int, last: int) -> NDArray[np.int64]:
        """Offsets at which documents first .. last - 1 begin, and that at which the last of them ends."""
        found = [np.zeros(1, np.int64) if first == last else np.array([self.start_of(first)])]
        for span in self._numbered([(first, last)]):
            edges = span.shard.starts(span.first, span.last)
            found.append(edges[1:] - edges[0] + found[-1][-1])
        return np.concatenate(found)

    def slice(self, start: int, stop: int) -> NDArray[np.int64]:
        """Ids start .. stop - 1; shorter at the end of the stream. Raises DataError for an id that is none."""
        pieces = [self._ids(span, low, high) for span, _, low, high in self._parts(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.int64), *pieces])

    def runs(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.integer]:
        """Ids from each start on, so many of them, one run behind the other; in the files' type, if it is one.

        starts: at least one.

        Raises DataError for an id that is none.
        """
        types = {span.shard.dtype for span in self.spans}
        found = np.empty(lengths.sum(), types.pop() if len(types) == 1 else np.int64)
        places, end = np.searchsorted(self._edges, starts, side="right") - 1, 0
        columns = (column.tolist() for column in (starts, lengths, places))
        for start, length, place in zip(*columns, strict=True):
            begin, end, span = end, end + length, self.spans[place]
            if start + length <= self._offsets[place + 1] and found.dtype == span.shard.dtype:
                span.shard.tokens_into(span.start + start - self._offsets[place], found[begin:end])
            else:
                found[begin:end] = self.slice(start, start + length)
        if self.ids is not None and not (found.max() < self.ids and (found.dtype.kind == "u" or found.min() >= 0)):
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                self.slice(start, start + length)  # names the place
        return found

    def trained(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the tokens that ``runs`` gives are trained on, laid out as those."""
        found = [np.zeros(0, np.bool_)]
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            parts = self._parts(start, start + length)
            found += [span.shard.trained(low, high) for span, _, low, high in parts]
        return np.concatenate(found)

    def borders_of(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``borders`` of many pairs at once: for each the pair's number, and its distance from the start."""
        if self.documents > KNOWN:
            each = [self.borders(*pair) for pair in zip(starts.tolist(), stops.tolist(), strict=True)]
            numbers, found = np.repeat(np.arange(len(each)), [len(one) for one in each]), np.concatenate(each)
        else:
            first, last = (np.searchsorted(self._begins, edges, side="right") for edges in (starts, stops))
            counts = last - first
            numbers = np.repeat(np.arange(len(starts)), counts)
            found = self._begins[np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts - first, counts)]
        return numbers, found - starts[numbers]

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """Where documents begin, rising, each once; those below ``total``."""
        begins = np.unique(self.starts(0, self.documents))
        return begins[begins < self.total]

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        return np.array(self._offsets)

    def borders(self, start: int, stop: int) -> NDArray[np.int64]:
        """Offsets above `start` up to `stop` at which a document begins, rising, each once; those below `total`."""
        found = []
        for span, offset, low, high in self._parts(start, stop + 1):
            inside = span.shard.borders(low, high - 1)
            if low == span.start and offset > start:
                inside = np.concatenate([[low], inside])
            found.append(inside + (offset - low))
        return np.concatenate([np.zeros(0, np.int64), *found])

    def without(self, held: Sequence[tuple[int, int]]) -> TokenStream:
        """All documents but those numbered first .. last - 1, for each (first, last); they rise and do not overlap."""
        edges = [0, *(edge for pair in held for edge in pair), self.documents]
        return TokenStream(self._numbered(zip(edges[::2], edges[1::2], strict=True)), self.ids)

    def only(self, held: Sequence[tuple[int, int]]) -> TokenStream:
        """The documents numbered first .. last - 1, for each (first, last)."""
        return TokenStream(self._numbered(held), self.ids)

    def _numbered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Span]:
        for first, last in ranges:
            place = max(0, bisect_right(self._documents, first) - 1)
            while first < last:
                span, before, after = self.spans[place], self._documents[place], self._documents[place + 1]
                until = min(last, after)
                yield Span.of(span.shard, span.first + first - before, span.first + until - before)
                first, place = until, place + 1

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Span, int, int, int]]:
        """Where tokens start .. stop - 1 are: spans, each with its part's offset here and its ends there."""
        stop = min(stop, self.total)
        place = bisect_right(self._offsets, start) - 1
        while start < stop:
            span, offset = self.spans[place], self._offsets[place]
            until = min(stop, self._offsets[place + 1])
            if start < until:
                yield span, start, span.start + start - offset, span.start + until - offset
            start, place = until, place + 1

    def _ids(self, span: Span, low: int, high: int) -> NDArray[np.int64]:
        ids = span.shard.tokens(low, high)
        if self.ids is not None and len(ids):
            refuse_other_ids(span.shard, low, ids, self.ids)
        return ids


def refuse_other_ids(shard: IndexedShard, offset: int, ids: NDArray[np.int64], size: int) -> None:
    """Raise DataError, naming the document, where a token is none of 0 .. size - 1. offset: of the first, in the shard.

    ids: at least one.
    """
    least, most = int(ids.min()), int(ids.max())
    if least >= 0 and most < size:
        return
    token = offset + int(np.argmax((ids < 0) | (ids >= size)))
    rule = f"document {shard.document_at(token)} has ids {least} .. {most}, first at token {token}"
    raise shard.error(shard.data, f"{rule}; the tokenizer has {size}", OTHER_TOKENIZER)
