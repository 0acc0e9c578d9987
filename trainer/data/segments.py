"""The samples of a source to which text was appended between two launches: what was there keeps its place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from trainer.data.best_fit import Fit, FittedSamples
from trainer.data.cursor import Segment
from trainer.data.packing import Ints, Sample, Samples, scattered
from trainer.data.packings import CONTIGUOUS, Packing
from trainer.data.stream import TokenStream
from trainer.errors import DataError, Problem


class SegmentedSamples(Samples):
    """Packed samples of each segment of a source, one segment after the other.

    growth: (samples drawn before it came, samples) of each. fit: what best-fit packing came to; None of another.
    """

    def __init__(
        self,
        name: str,
        tokens: TokenStream,
        segments: Sequence[Segment] | None,
        seq_len: int,
        document_mask: bool,
        packing: Packing = CONTIGUOUS,
    ) -> None:
        """segments: None: all came at once.

        Raises DataError where they are not the tokens that there are, or no sample comes of the first.
        """
        segments = segments or [Segment(0, tokens.total)]
        ends = list(accumulate(part.tokens for part in segments))
        if ends[-1] != tokens.total:
            rule = f"has the {ends[-1]:,} tokens that the checkpoint counts"
            raise DataError(
                Problem(f"data.sources[{name}].paths", f"{tokens.total:,} tokens", rule, "restore its text")
            )
        parts = zip([0, *ends[:-1]], ends, strict=True)
        self._packed = [packing.samples(tokens, seq_len, document_mask, part) for part in parts]
        self._seq_len = seq_len
        sizes = [len(packed) for packed in self._packed]
        if not sizes[0]:
            rule = f"leaves something of source {name}, all of whose documents have more than {seq_len:,} tokens"
            rule += " and nothing to train on in the first of them" if packing.long_documents == "truncate" else ""
            raise DataError(Problem("data.long_documents", packing.long_documents, rule, "set it to split"))
        self._starts = [0, *accumulate(sizes[:-1])]
        self.growth = [(part.number, size) for part, size in zip(segments, sizes, strict=True)]

        fits = [packed.fit for packed in self._packed if isinstance(packed, FittedSamples)]
        self.fit = Fit.of(fits) if fits else None

    @property
    def padding(self) -> float:
        """The share of all positions that holds no token."""
        return sum(packed.padding for packed in self._packed) / (len(self) * self._seq_len)

    def __len__(self) -> int:
        return sum(size for _, size in self.growth)

    def rows(self, indices: Ints) -> Sample:
        if len(self._packed) == 1:
            return self._packed[0].rows(indices)
        segments = np.searchsorted(self._starts, indices, side="right") - 1
        parts = []
        for segment in np.unique(segments).tolist():
            places = np.flatnonzero(segments == segment)
            parts.append((places, self._packed[segment].rows(indices[places] - self._starts[segment])))
        return scattered(parts)
