"""What is done to the logits of the next token before one is drawn: transformers' definitions, in its order.

All take and give FP32 [batch, vocab]; a token that is ruled out has -inf. The most likely token always stays.
"""

from __future__ import annotations

import torch

from trainer.generation.settings import Sampling

OUT = -torch.inf


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make tokens of the text less likely (arXiv:1909.05858, section 4.1). seen: bool [batch, vocab]."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest, and those that equal the last of them."""
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, OUT)


def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The fewest tokens whose probabilities add up to p (arXiv:1904.09751)."""
    ordered, order = logits.sort(dim=-1)
    out = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    out[:, -1] = False
    return logits.masked_fill(out.scatter(1, order, out), OUT)


def keep_min_p(logits: torch.Tensor, share: float) -> torch.Tensor:
    """Tokens with at least this share of the largest probability (arXiv:2407.01082)."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(dim=-1, keepdim=True), OUT)


def processed(logits: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None) -> torch.Tensor:
    """All that is asked for. seen: tokens of the text, bool [batch, vocab]; None without a repetition penalty."""
    if seen is not None:
        logits = penalise(logits, seen, sampling.repetition_penalty)
    if sampling.greedy:
        return logits
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = keep_min_p(logits, sampling.min_p)
    return logits
