"""The embedding of the plain decoder, and of whatever else a family makes."""

from __future__ import annotations

import torch
from torch import nn

from trainer.lookup import lookup


class Embedding(nn.Embedding):
    """torch's embedding, with a gradient whose rows add up in FP32 (trainer/lookup.py)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [...] -> [..., size]."""
        return lookup(tokens, self.weight)


def sum_in_fp32(model: nn.Module) -> None:
    """Make torch's own embeddings of a model ours, in place. One with options of torch's stays what it is."""
    for module in model.modules():
        if type(module) is nn.Embedding and not (
            module.sparse or module.scale_grad_by_freq or module.max_norm is not None or module.padding_idx is not None
        ):
            module.__class__ = Embedding
