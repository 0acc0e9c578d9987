"""Scores of a model that trains, on any layout: by losses of microbatches, and by the next token's logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.backends.base import Backend, GoOn
from trainer.batch import IGNORED_LABEL, Batch
from trainer.data.heldout import HeldoutWindows
from trainer.data.packing import collate, padding_sample
from trainer.evaluation.choices import picks, shares
from trainer.evaluation.exact import requests_of, share
from trainer.evaluation.scoring import Row, Score
from trainer.generation.generate import Growing
from trainer.training.sets import ChoiceSet, ExactSet

Metrics = Mapping[str, float]
CUT = 16
"""Lengths of prompts are rounded up to a multiple of it."""


class Scorer(Protocol):
    """Scores a model on one set."""

    @property
    def name(self) -> str: ...

    @property
    def together(self) -> bool:
        """Whether data-parallel ranks meet within a piece that ``go_on`` is asked about."""

    def score(self, backend: Backend, go_on: GoOn) -> Metrics | None:
        """By name; None where ``go_on`` has ended it. Collective."""


@dataclass(frozen=True)
class Shape:
    """Of what a backend takes. free: any. Else every microbatch has as many rows and tokens as in training."""

    rows: int
    seq_len: int
    free: bool

    def of(self, tokens: int) -> tuple[int, int]:
        """Of a microbatch for a row of so many tokens."""
        return (1, tokens) if self.free else (self.rows, self.seq_len)


@dataclass(frozen=True)
class TextScorer:
    """Fixed windows of a text.

    batches: this rank's windows, the same number and shape on every rank. target_bytes: bytes of text that all
    ranks' targets stand for; the model also predicts document ends, which cost nats and count no bytes.
    """

    name: str
    batches: Sequence[Batch]
    target_bytes: int
    zlib_bits_per_byte: float
    together = False

    @classmethod
    def of(cls, name: str, windows: HeldoutWindows, microbatch: int, dp_rank: int, dp: int) -> TextScorer | None:
        """None where the windows have no text."""
        baseline = windows.zlib_bits_per_byte()
        if baseline is None:
            return None
        return cls(name, windows.batches(microbatch, dp_rank, dp), windows.target_bytes, baseline)

    def score(self, backend: Backend, go_on: GoOn) -> Metrics | None:
        """Loss in nats per target token, bits per byte, and those of zlib -9 on the same windows."""
        if (found := backend.evaluate(self.batches, go_on)) is None:
            return None
        nats, targets = found
        return {
            "loss": nats / max(1, targets),
            "bits_per_byte": nats / math.log(2) / max(1, self.target_bytes),
            "zlib_bits_per_byte": self.zlib_bits_per_byte,
        }


class ChoiceScorer:
    """Multiple choice: each choice is a microbatch of one data-parallel rank."""

    together = False

    def __init__(self, of: ChoiceSet, shape: Shape, dp_rank: int, dp: int) -> None:
        self.name, self._items, self._rows, self._dp = of.name, of.task.choices, of.scored.rows, dp
        mine = self._rows[dp_rank::dp]
        self._batches = [_batch(row, shape) for row in mine]
        # Ranks meet in microbatches: each has as many.
        missing = -(-len(self._rows) // dp) - len(mine)
        self._batches += [_batch(None, shape)] * missing

    def score(self, backend: Backend, go_on: GoOn) -> Metrics | None:
        """Shares of items, as trainer.evaluation.choices measures them."""
        if (losses := backend.losses(self._batches, go_on)) is None:
            return None
        count = len(self._batches)
        nats = (losses[number % self._dp * count + number // self._dp] for number in range(len(self._rows)))
        scores = [Score(one, row.targets, greedy=False) for one, row in zip(nats, self._rows, strict=True)]
        return shares(self._items, picks(self._items, scores))


def _batch(row: Row | None, shape: Shape) -> Batch:
    """A row, and behind it rows without targets; None: only those."""
    tokens = row.tokens if row is not None else (0, 0)
    rows, length = shape.of(len(tokens) - 1)
    samples = [padding_sample(length) for _ in range(rows)]
    if row is not None:
        size, first = len(tokens) - 1, samples[0]
        first.tokens[:size], first.labels[:size] = tokens[:-1], tokens[1:]
        first.labels[: size - row.targets] = IGNORED_LABEL
        first.positions[:size], first.document_ids[:size] = range(size), 0
    return collate(samples)


class ExactScorer:
    """Exact match: every prompt is continued greedily, by the logits of one token after the other."""

    together = True

    def __init__(self, of: ExactSet, shape: Shape) -> None:
        self.name, self._set, self._shape = of.name, of, shape

    def score(self, backend: Backend, go_on: GoOn) -> Metrics | None:
        """The share of items whose text is an answer."""
        said = []
        for number, (request, prompt) in enumerate(zip(requests_of(self._set.task), self._set.prompts, strict=True)):
            if not go_on(number):
                return None
            grown = Growing(prompt, self._set.words, request.limits, self._shape.seq_len)
            tokens = list(prompt)
            while not grown.answer.ended:
                logits = backend.next_token_logits(tokens, self._length(len(tokens)))
                # The first rank's: one that ends earlier would leave the others waiting.
                tokens.append(backend.host.broadcast(int(torch.argmax(logits).item())))
                grown.push(tokens[-1])
            said.append(grown.answer.text)
        return {"exact_match": share(self._set.task, said)}

    def _length(self, tokens: int) -> int:
        return min(self._shape.seq_len, -(-tokens // CUT) * CUT) if self._shape.free else self._shape.seq_len
