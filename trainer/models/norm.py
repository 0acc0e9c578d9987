"""RMSNorm, LayerNorm, and RMSNorm over all heads of queries or keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dim (Zhang & Sennrich 2019, arXiv:1910.07467).

    The mean square is FP32 whatever the input's dtype: PyTorch's kernel upcasts BF16 inside.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., size] -> [..., size], same dtype."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class LayerNorm(nn.Module):
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) with weight and bias, computed in FP32.

    In BF16 torch's CPU kernel adds up the gradients of weight and bias over the tokens in BF16: 14 % and 93 % off at
    16,384 tokens (torch 2.9.1; docs/numerics.md).
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., size] -> [..., size], same dtype."""
        normed = F.layer_norm(x.float(), (x.shape[-1],), eps=self.eps)
        return (normed * self.weight.float() + self.bias.float()).to(x.dtype)


class AllHeadsNorm(nn.Module):
    """RMSNorm over all heads of the queries, or keys, together (OLMo 2, arXiv:2501.00656, section 3.1).

    A lowering that hands a rank some of the heads replaces ``mean_square``.
    """

    mean_square: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.mean_square = mean_square

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., heads * head_dim] -> the same shape and dtype."""
        wide = x.float()
        return (wide * torch.rsqrt(self.mean_square(wide) + self.eps)).to(x.dtype) * self.weight


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """FP32 [..., n] -> [..., 1]."""
    return x.square().mean(-1, keepdim=True)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {"rms": RMSNorm, "layer": LayerNorm}
"""By model.norm: made from (size, eps)."""
