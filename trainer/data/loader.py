"""One rank's batches for each step, prepared ahead by a background thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trainer.ahead import Ahead
from trainer.batch import IGNORED_LABEL, Batch, StepBatch
from trainer.data.corpus import Corpus
from trainer.data.cursor import Cursor
from trainer.data.draws import draw_keys_into
from trainer.data.mixture import Mixture, mixtures
from trainer.data.order import Draw, GlobalOrder, SourceOrder
from trainer.data.packing import Sample, scattered
from trainer.data.packings import CONTIGUOUS, Packing
from trainer.data.paths import typed_keys
from trainer.data.segments import SegmentedSamples


class TrainLoader:
    """An endless iterator of StepBatch, starting at a cursor.

    The stream of samples is global; this rank reads only its slice of each step. A StepBatch carries the cursor after
    its step, and a loader that starts there continues the same stream, on any number of ranks.

    order: which sample comes when. start: the cursor that it starts at.
    """

    def __init__(
        self,
        corpus: Corpus,
        seq_len: int,
        document_mask: bool,
        seed: int,
        samples_per_step: int,
        microbatch: int,
        dp_rank: int,
        dp_size: int,
        cursor: Cursor | None,
        prefetch: int,
        stages: Sequence[tuple[int, Mixture]] = (),
        packing: Packing = CONTIGUOUS,
        draws: bool = True,
    ) -> None:
        """samples_per_step: over all ranks; a multiple of dp_size * microbatch. prefetch: steps; 0: no thread.

        stages: mixtures with the samples before each; none: the sources' own weights throughout.
        packing: how documents become samples. draws: whether anything is drawn in a step; without,
        keys are NO_DRAW.
        Raises DataError when the cursor belongs to other sources.
        """
        assert samples_per_step % (dp_size * microbatch) == 0, (samples_per_step, dp_size, microbatch)
        assert 0 <= dp_rank < dp_size, (dp_rank, dp_size)
        start = cursor or Cursor.first(corpus.names, [tokens.total for tokens in corpus.train])
        self._sources = {
            name: SegmentedSamples(name, tokens, start.segments.get(name), seq_len, document_mask, packing)
            for name, tokens in zip(corpus.names, corpus.train, strict=True)
        }
        orders = {name: SourceOrder(name, seed, source.growth) for name, source in self._sources.items()}
        self.order = GlobalOrder(stages or mixtures(corpus.names, corpus.weights), orders)
        self._names, self._seq_len = corpus.names, seq_len
        self._samples_per_step = samples_per_step
        self._microbatch, self._seed, self._draws = microbatch, seed, draws
        share = samples_per_step // dp_size
        self._slice = slice(dp_rank * share, (dp_rank + 1) * share)
        self.start = start
        self.order.take(start, 0)  # raises for a cursor of other sources here, not in the thread
        self._steps = Ahead(self._generate(start), prefetch, "data-prefetch")

    def __iter__(self) -> Iterator[StepBatch]:
        return self

    def __next__(self) -> StepBatch:
        return next(self._steps)

    def close(self) -> None:
        """Stop the background thread; the iterator ends. May be called more than once."""
        self._steps.close()

    def packed(self) -> list[str]:
        """A line for each source about best-fit packing; none where samples are cut from the stream."""
        fits = [(name, source.fit) for name, source in self._sources.items()]
        return [f"  source {name}  {fit.describe(self._seq_len)}" for name, fit in fits if fit is not None]

    def padding(self) -> dict[str, float]:
        """The share of each source's positions that is padding."""
        return {name: source.padding for name, source in self._sources.items()}

    def _generate(self, cursor: Cursor) -> Iterator[StepBatch]:
        while True:
            first = cursor.drawn + self._slice.start
            draws, cursor = self.order.take(cursor, self._samples_per_step)
            own, size = draws[self._slice], self._microbatch
            with typed_keys(self._names):
                groups = [self.samples(own[at : at + size], first + at) for at in range(0, len(own), size)]
            targets = sum(int(np.count_nonzero(group.labels != IGNORED_LABEL)) for group in groups)
            batches = [Batch(*map(torch.from_numpy, group)) for group in groups]
            yield StepBatch(batches, targets, cursor.to_json(), self.order.epochs(cursor.per_source))

    def samples(self, draws: Sequence[Draw], number: int) -> Sample:
        """The samples that draws stand for, [draws, seq_len]; the first is the ``number``-th of the run."""
        parts = []
        for name in dict.fromkeys(draw.source for draw in draws):
            places = [place for place, draw in enumerate(draws) if draw.source == name]
            indices = np.array([self.order.sample(draws[place]) for place in places])
            parts.append((np.array(places), self._sources[name].rows(indices)))
        rows = scattered(parts)
        if self._draws:
            rows = rows._replace(keys=np.empty_like(rows.tokens))
            draw_keys_into(self._seed, number, rows.keys)
        return rows
