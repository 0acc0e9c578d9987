"""Which token comes next: rank 0 draws for all, by numbers that depend on the seed, the prompt and the place only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from trainer.backends.common.host import HostExchange
from trainer.generation.processors import processed
from trainer.generation.settings import Sampling

NONE = -1
"""In the place of a token where the model gives no finite logits: any id would be taken for its choice."""


class Sampler:
    """Of one batch. rows: the numbers of its prompts among all, so that no batch size changes a text."""

    def __init__(
        self, sampling: Sampling, prompts: Sequence[Sequence[int]], rows: Sequence[int], vocab: int, host: HostExchange
    ) -> None:
        self._sampling, self._rows, self._host, self._step = sampling, rows, host, 0
        self._seen: torch.Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen = torch.zeros((len(prompts), vocab), dtype=torch.bool)
            for row, prompt in enumerate(prompts):
                self._seen[row, list(prompt)] = True

    def __call__(self, logits: torch.Tensor) -> list[int]:
        """FP32 [batch, vocab] -> a token a row, or NONE; the same on every rank. Collective."""
        mine = self._chosen(logits.cpu()) if self._host.rank == 0 else [0] * len(self._rows)
        tokens = self._host.sum(mine)
        self._step += 1
        if self._seen is not None:
            self._seen[torch.arange(len(tokens)), tokens] = True
        return tokens

    def _chosen(self, logits: torch.Tensor) -> list[int]:
        logits = processed(logits, self._sampling, self._seen)
        if self._sampling.greedy:
            best = logits.argmax(dim=-1, keepdim=True)  # of a row with NaN, its place
            return _where_finite(best, logits.gather(1, best))
        # In FP64, from the first id to the last: rounding of another layout moves a bound by less than a draw sees.
        sums = logits.double().softmax(dim=-1).cumsum(dim=-1)
        draws = torch.tensor([[draw(self._sampling.seed, row, self._step)] for row in self._rows], dtype=torch.float64)
        # From the right: a token of probability 0 has its neighbour's bound, and is passed over.
        found = torch.searchsorted(sums, draws * sums[:, -1:], right=True)
        return _where_finite(found.clamp(max=logits.shape[-1] - 1), sums[:, -1:])


def _where_finite(tokens: torch.Tensor, values: torch.Tensor) -> list[int]:
    """Both [batch, 1]."""
    return [int(token) for token in tokens.where(values.isfinite(), NONE)[:, 0]]


def draw(seed: int, row: int, step: int) -> float:
    """A number from 0 to below 1, of 53 bits."""
    digest = hashlib.blake2b(f"{seed}/{row}/{step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)
