"""Rows of a table by number, with a gradient that does not depend on how often a number stands in a microbatch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def lookup(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Rows of a weight [vocab, size] by tokens, int64 [...]: [..., size], in the weight's dtype.

    The gradient of a row is a sum over every place where its token stands. For a BF16 weight torch's CPU kernel and
    XLA's scatter add these up in BF16, where 256 + 1 = 256. Here they add up in FP32, and the sum is rounded once.
    """
    if weight.dtype.itemsize >= torch.float32.itemsize:
        return F.embedding(tokens, weight)
    rows: torch.Tensor = _Lookup.apply(tokens, weight)
    return rows


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(tokens)
        ctx.vocab, ctx.dtype = weight.shape[0], weight.dtype
        return F.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        (tokens,) = ctx.saved_tensors
        # Not index_add_: on CUDA its bits differ from run to run. -1: no token is left out; False: none is scaled.
        sums = torch.ops.aten.embedding_dense_backward(gradients[0].float(), tokens, ctx.vocab, -1, False)
        return None, sums.to(ctx.dtype)
