"""Embedding and loss with the vocabulary cut over the tensor-parallel ranks: nobody holds all logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from trainer.backends.common.vocabulary import rows_here
from trainer.batch import IGNORED_LABEL


class VocabularyEmbedding(nn.Module):
    """An embedding of which this rank holds the rows from ``first``: it looks up its own tokens, and the ranks add."""

    def __init__(self, weight: torch.Tensor, first: int, leave: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight, self.first, self.leave = weight, first, leave

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [batch, seq] -> [batch, seq, hidden], or this rank's part of the sequence."""
        return self.leave(rows_here(tokens, self.weight, self.first))


@dataclass(frozen=True)
class VocabularyChunkLoss:
    """trainer.models.loss.chunk_loss over the ranks' parts of the logits: three numbers a token cross the axis.

    first: this rank's first row of the head.
    """

    group: dist.ProcessGroup
    first: int

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logits: FP32 [tokens, rows here]; labels: [tokens]. The loss summed, and the gradient of these logits."""
        largest = logits.amax(dim=-1, keepdim=True)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        logits -= largest
        local = labels - self.first
        here = (local >= 0) & (local < logits.shape[1])  # never true of IGNORED_LABEL, which is negative
        index = local.where(here, 0).unsqueeze(-1)
        target = logits.gather(1, index).squeeze(-1) * here
        powers = logits.exp_()
        sums = torch.stack((powers.sum(dim=-1), target))
        dist.all_reduce(sums, group=self.group)
        live = labels != IGNORED_LABEL
        loss = ((sums[0].log() - sums[1]) * live).sum()
        gradient = powers.div_(sums[0].unsqueeze(-1))
        gradient.scatter_add_(1, index, -here.to(gradient.dtype).unsqueeze(-1))
        return loss, gradient.mul_(live.unsqueeze(-1))
