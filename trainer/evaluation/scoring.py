"""Log-probabilities of given tokens: what loss, perplexity and multiple choice are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

import torch

from trainer.data.progress import Report, track
from trainer.generation.opened import Opened

PADDING = 0
"""An id where there is no token; its document, -1, is nobody's."""
CHUNK = 256
"""Rows of logits that exist at a time: a vocabulary is large."""


class Row(NamedTuple):
    """Tokens of which the last ``targets`` are predicted, each from all that stand before it; at least one does.

    counted: which of the targets make up the score, at least one of them; None: all.
    """

    tokens: Sequence[int]
    targets: int
    counted: Sequence[bool] | None = None

    def chosen(self) -> list[bool]:
        """Of all tokens but the last, those behind which a counted target stands."""
        counted = [True] * self.targets if self.counted is None else list(self.counted)
        return [False] * (len(self.tokens) - 1 - self.targets) + counted


class Score(NamedTuple):
    """nats: summed -log p of the targets that count. targets: of these. greedy: whether each is the likeliest."""

    nats: float
    targets: int
    greedy: bool


@torch.inference_mode()
def score(
    opened: Opened, rows: Sequence[Row], batch: int = 8, name: str = "", report: Report | None = None
) -> list[Score]:
    """In the order of ``rows``. Collective: every rank gives the same rows, and gets the same scores.

    batch: rows that are read together; it changes no score by more than rounding. The longest come first: what does not
    fit into the memory fails at once. report: told how far it is, of what has this name.
    """
    found: dict[int, Score] = {}
    total = sum(len(row.tokens) - 1 for row in rows)
    with track(name, total, report, "tokens") as advance:
        for numbers in _batches(opened, rows, batch):
            together = [rows[number] for number in numbers]
            found.update(zip(numbers, _together(opened, together), strict=True))
            advance(sum(len(row.tokens) - 1 for row in together))
    return [found[number] for number in range(len(rows))]


def _batches(opened: Opened, rows: Sequence[Row], batch: int) -> Iterator[list[int]]:
    """Numbers of rows of nearly one length."""
    dynamic = opened.model.rope_scaling.kind == "dynamic"
    numbers: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number].tokens)):
        # Dynamic scaling turns by the length of the sample: padding would be other angles.
        other = dynamic and bool(numbers) and len(rows[numbers[0]].tokens) != len(rows[number].tokens)
        if len(numbers) == batch or other:
            yield numbers
            numbers = []
        numbers.append(number)
    if numbers:
        yield numbers


def _together(opened: Opened, rows: Sequence[Row]) -> list[Score]:
    assert all(0 < row.targets < len(row.tokens) for row in rows), "a target has a token before it"
    longest = max(len(row.tokens) - 1 for row in rows)
    device = next(opened.decoder.parameters()).device
    tokens = torch.full((len(rows), longest), PADDING)
    documents, wanted = torch.full_like(tokens, -1), torch.zeros_like(tokens, dtype=torch.bool)
    for number, row in enumerate(rows):
        size = len(row.tokens) - 1
        tokens[number, :size] = torch.tensor(row.tokens[:-1])
        documents[number, :size] = 0
        wanted[number, :size] = torch.tensor(row.chosen())
    positions = torch.arange(longest).expand_as(tokens) * (documents == 0)
    hidden = opened.decoder(tokens.to(device), positions.to(device), documents.to(device))
    chosen = hidden[wanted.to(device)]
    every = [list(compress(row.tokens[1:], row.chosen())) for row in rows]
    labels = torch.tensor([token for targets in every for token in targets])
    nats, best = _of_labels(opened, chosen, labels)
    counts = [len(targets) for targets in every]
    pieces = zip(nats.split(counts), best.split(counts), counts, strict=True)
    return [Score(float(piece.sum()), count, bool(most.all())) for piece, most, count in pieces]


def _of_labels(opened: Opened, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[targets, hidden], ids [targets] -> -log p in FP64, and whether each is the most likely; on the host."""
    nats, best = [], []
    for start in range(0, len(labels), CHUNK):
        # Rows that no id has are padding of a vocabulary that ranks share.
        logits = opened.head(hidden[start : start + CHUNK].unsqueeze(0))[0, :, : opened.model.vocab].float()
        wanted = labels[start : start + CHUNK].to(logits.device)
        # In FP64: the FP32 sum over 49,152 ids of SmolLM2 is off by 2e-5 nats, each time to the same side.
        nats.append(-logits.double().log_softmax(dim=-1).gather(1, wanted.unsqueeze(1))[:, 0].cpu())
        best.append((logits.argmax(dim=-1) == wanted).cpu())
    return torch.cat(nats), torch.cat(best)
