"""RMSNorm."""

from __future__ import annotations

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
