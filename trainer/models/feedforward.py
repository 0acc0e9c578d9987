"""The SwiGLU feed-forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from trainer.config.groups.model import ModelConfig


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.mlp, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.mlp, bias=False)
        self.down_proj = nn.Linear(config.mlp, config.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        gate, up = self.gate_and_up(x)
        return self.down_proj(F.silu(gate) * up)

    def gate_and_up(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[..., hidden] -> twice [..., mlp]. A lowering that fuses the two replaces this."""
        return self.gate_proj(x), self.up_proj(x)
