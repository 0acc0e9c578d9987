"""Cross-entropy of the head's logits, without ever holding the logits of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        factors: Any = getattr(head, "factors", None)  # of a head with an adapter
        if factors is None:
            return summed_cross_entropy(rows, head.weight, targets, self.chunk_tokens, self.chunk_loss)
        weight, low, up = factors(hidden)
        beside = None if low is None or up is None else (low.flatten(0, 1), up)
        return summed_cross_entropy(rows, weight, targets, self.chunk_tokens, self.chunk_loss, beside)


def summed_cross_entropy(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    chunk_tokens: int,
    chunk_loss: ChunkLoss = chunk_loss,
    beside: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Sum over target tokens of -log softmax(hidden @ head.T)[label], as an FP32 scalar.

    hidden: [tokens, hidden]; head: [vocab, hidden]; labels: [tokens], IGNORED_LABEL where there is no target.
    beside: [tokens, rank] and [vocab, rank], whose product is added to the logits: an adapter's.
    At most chunk_tokens rows of logits exist at a time. The gradient is worked out together with the loss (the
    softmax is at hand), so nothing is computed twice.
    """
    pairs = [(hidden, head)] if beside is None else [(hidden, head), beside]
    # Inside forward() gradients are always off: whether anybody wants them has to be asked here.
    enabled = torch.is_grad_enabled()
    tensors = [tensor for pair in pairs for tensor in pair]
    wanted = [enabled and tensor.requires_grad for tensor in tensors]
    result: torch.Tensor = _ChunkedCrossEntropy.apply(labels, chunk_tokens, chunk_loss, wanted, *tensors)
    return result


class _ChunkedCrossEntropy(torch.autograd.Function):
    """tensors: rows [tokens, size] and weights [vocab, size] in turns; the logits are the sum of their products."""

    @staticmethod
    def forward(
        ctx: Any,
        labels: torch.Tensor,
        chunk_tokens: int,
        chunk_loss: ChunkLoss,
        wanted: Sequence[bool],
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=labels.device)
        kinds = enumerate(zip(tensors, wanted, strict=True))
        gradients = [_accumulator(tensor, want, index % 2 == 1) for index, (tensor, want) in kinds]
        pairs = [(tensors[index], tensors[index + 1]) for index in range(0, len(tensors), 2)]
        for start in range(0, labels.shape[0], chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            logits = _logits(pairs, rows)
            summed, gradient = chunk_loss(logits, labels[rows])
            loss += summed
            for (x, weight), of_x, of_weight in zip(pairs, gradients[::2], gradients[1::2], strict=True):
                _add(gradient.to(x.dtype), x[rows], weight, None if of_x is None else of_x[rows], of_weight)
        saved = [None if of is None else of.to(tensor.dtype) for of, tensor in zip(gradients, tensors, strict=True)]
        ctx.save_for_backward(*saved)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        found = [None if saved is None else saved * gradients[0] for saved in ctx.saved_tensors]
        return (None, None, None, None, *found)


def _accumulator(tensor: torch.Tensor, wanted: bool, weight: bool) -> torch.Tensor | None:
    """Of rows, each written once; of a weight, whose chunks add up in FP32: a BF16 sum over many chunks would lose what
    the matrix products kept.
    """
    if not wanted:
        return None
    return torch.zeros_like(tensor, dtype=torch.float32) if weight else torch.empty_like(tensor)


def _logits(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: slice) -> torch.Tensor:
    logits = F.linear(pairs[0][0][rows], pairs[0][1]).float()
    for x, weight in pairs[1:]:
        logits += F.linear(x[rows], weight)
    return logits


def _add(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    of_x: torch.Tensor | None,
    of_weight: torch.Tensor | None,
) -> None:
    """A chunk's share of the gradients. gradient: of its logits, in the dtype of x."""
    if of_x is not None:
        of_x.copy_(gradient @ weight)
    if of_weight is None:
        return
    if weight.dtype == torch.float32:
        of_weight.addmm_(gradient.T, x)
    else:
        of_weight += gradient.T @ x
