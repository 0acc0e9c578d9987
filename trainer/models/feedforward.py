"""The feed-forward: gated by SiLU, or plain with GELU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from trainer.config.groups.model import ModelConfig


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.mlp, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden, config.mlp, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp, config.hidden, bias=config.mlp_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        gate, up = self.gate_and_up(x)
        return self.down_proj(F.silu(gate) * up)

    def gate_and_up(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[..., hidden] -> twice [..., mlp]. A lowering that fuses the two replaces this."""
        return self.gate_proj(x), self.up_proj(x)


class PlainFeedForward(nn.Module):
    """down(gelu(up(x))) (Hendrycks & Gimpel 2016, arXiv:1606.08415; the approximation by tanh is GPT-2's)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden, config.mlp, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp, config.hidden, bias=config.mlp_bias)
        self.activate: Callable[[torch.Tensor], torch.Tensor] = ACTIVATIONS[config.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(self.activate(self.up(x)))

    def up(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., mlp]. A lowering replaces ``up_proj``."""
        return self.up_proj(x)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
"""By model.activation, of a feed-forward without a gate."""


def feed_forward(config: ModelConfig) -> nn.Module:
    """The one that model.activation names."""
    return FeedForward(config) if config.activation == "swiglu" else PlainFeedForward(config)
