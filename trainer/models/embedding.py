"""The embedding of the plain decoder."""

from __future__ import annotations

import torch
from torch import nn

from trainer.lookup import lookup


class Embedding(nn.Embedding):
    """torch's embedding, with a gradient whose rows add up in FP32 (trainer/lookup.py)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [...] -> [..., size]."""
        return lookup(tokens, self.weight)
