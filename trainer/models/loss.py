"""Cross-entropy of the head's logits, without ever holding the logits of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainer.batch import IGNORED_LABEL

ChunkLoss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(FP32 logits [tokens, vocab], labels [tokens]) -> the summed loss and its gradient with respect to the logits.
It may use the logits' memory for the gradient."""


def chunk_loss(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy summed over the target tokens, FP32 scalar; softmax - onehot for them, zero for the others."""
    log_probabilities = F.log_softmax(logits, dim=-1)
    loss = F.nll_loss(log_probabilities, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    gradient = log_probabilities.exp_()
    index = labels.clamp(min=0).unsqueeze(-1)
    gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
    return loss, gradient.mul_((labels != IGNORED_LABEL).unsqueeze(-1))


class HeadLoss(nn.Module):
    """The head and the loss in one. A lowering that cuts the vocabulary replaces ``chunk_loss``."""

    chunk_loss: ChunkLoss

    def __init__(self, chunk_tokens: int) -> None:
        super().__init__()
        self.chunk_tokens = chunk_tokens
        self.chunk_loss = chunk_loss

    def forward(self, hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor) -> torch.Tensor:
        """hidden: [batch, seq, hidden]; labels: [batch, seq]. Summed cross-entropy of the targets, FP32 scalar."""
        rows, targets = hidden.flatten(0, 1), labels.flatten()
        return summed_cross_entropy(rows, head.weight, targets, self.chunk_tokens, self.chunk_loss)


def summed_cross_entropy(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    chunk_tokens: int,
    chunk_loss: ChunkLoss = chunk_loss,
) -> torch.Tensor:
    """Sum over target tokens of -log softmax(hidden @ head.T)[label], as an FP32 scalar.

    hidden: [tokens, hidden]; head: [vocab, hidden]; labels: [tokens], IGNORED_LABEL where there is no target.
    At most chunk_tokens rows of logits exist at a time. The gradient is worked out together with the loss (the
    softmax is at hand), so nothing is computed twice.
    """
    # Inside forward() gradients are always off: whether anybody wants them has to be asked here.
    enabled = torch.is_grad_enabled()
    wanted = (enabled and hidden.requires_grad, enabled and head.requires_grad)
    result: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, head, labels, chunk_tokens, chunk_loss, wanted)
    return result


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        labels: torch.Tensor,
        chunk_tokens: int,
        chunk_loss: ChunkLoss,
        wanted: tuple[bool, bool],
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if wanted[0] else None
        # Chunks add up in FP32: a BF16 sum over many chunks would lose what the matrix products kept.
        head_gradient = torch.zeros_like(head, dtype=torch.float32) if wanted[1] else None
        for start in range(0, hidden.shape[0], chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            x = hidden[rows]
            summed, gradient = chunk_loss(F.linear(x, head).float(), labels[rows])
            loss += summed
            gradient = gradient.to(x.dtype)
            if hidden_gradient is not None:
                hidden_gradient[rows] = gradient @ head
            if head_gradient is None:
                continue
            if head.dtype == torch.float32:
                head_gradient.addmm_(gradient.T, x)
            else:
                head_gradient += gradient.T @ x
        ctx.save_for_backward(hidden_gradient, None if head_gradient is None else head_gradient.to(head.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        found = [None if saved is None else saved * gradients[0] for saved in ctx.saved_tensors]
        return (*found, None, None, None, None)
