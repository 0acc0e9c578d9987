"""How long the documents of a source are, for people: counted, or of a corpus of many at drawn places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.permutation import drawn_places
from trainer.data.stream import TokenStream

COUNTED = 1 << 20
"""Documents up to which all are looked at."""
PLACES, RUN = 256, 1024
"""Above that: so many places, and documents in a row at each."""
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
WIDTH = 40
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of documents, int64. documents: how many there are."""

    tokens: NDArray[np.int64]
    documents: int

    @classmethod
    def of(cls, stream: TokenStream) -> Lengths:
        """Of all documents of a stream, or of some at places that its size draws. Reads the index, not the tokens."""
        count = stream.documents
        if count <= COUNTED:
            return cls(np.diff(stream.starts(0, count)), count)
        runs = (block * RUN for block in drawn_places(-(-count // RUN), PLACES, count, stream.total))
        return cls(np.concatenate([np.diff(stream.starts(at, min(at + RUN, count))) for at in runs]), count)

    def quantiles(self) -> list[int]:
        """At QUANTILES: the shortest, 10 %, the median, 90 %, 99 % and the longest of those looked at."""
        found = np.quantile(self.tokens, QUANTILES, method="inverted_cdf") if len(self.tokens) else np.zeros(6)
        return [int(value) for value in found]

    def bins(self) -> list[tuple[int, int, int]]:
        """(least, most, documents): by powers of two, from the shortest to the longest."""
        powers = np.frexp(np.maximum(self.tokens, 0))[1]  # 0 for no token; n for 2**(n-1) .. 2**n - 1
        counts = np.bincount(powers)
        filled = np.flatnonzero(counts)
        every = range(int(filled[0]), int(filled[-1]) + 1) if len(filled) else range(0)
        return [(1 << power >> 1, max(0, (1 << power) - 1), int(counts[power])) for power in every]

    def lines(self) -> Iterator[str]:
        """A table of the quantiles and a picture in text."""
        drawn = len(self.tokens) < self.documents
        yield f"    tokens of a document{f', of {len(self.tokens):,} at drawn places' if drawn else ''}:"
        names = ("shortest", "10 %", "median", "90 %", "99 %", "longest")
        both = zip(names, self.quantiles(), strict=True)
        yield "    " + ", ".join(f"{name} {value:,}" for name, value in both)
        most = max((count for _, _, count in self.bins()), default=0)
        for low, high, count in self.bins():
            bar = "#" * -(-count * WIDTH // most)
            yield f"    {f'{low:,} - {high:,}':>21} {bar:<{WIDTH}} {count:,}"
