"""Causal self-attention with grouped key-value heads, inside documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.models.norm import AllHeadsNorm, RMSNorm
from trainer.models.rotary import rotate


class Context(NamedTuple):
    """What every layer's attention needs to know about the samples; built once a forward pass by ``build_context``.

    cosines, sines: FP32 [batch, 1, seq, head_dim / 2], None where positions are learned. mask: bool [batch, 1, seq,
    keys], True where attention may look; window: the same inside the sliding window; None where no layer uses it. (A
    lowering with an ``attend`` of its own may describe both otherwise.)
    positions, document_ids: int64 [batch, seq], for a lowering whose attention works without a dense mask. keys: for
    dropout between blocks, as trainer.batch.Batch has them; within: of the positions within blocks; None where nothing
    is dropped.
    """

    cosines: torch.Tensor | None
    sines: torch.Tensor | None
    mask: torch.Tensor | None
    positions: torch.Tensor
    document_ids: torch.Tensor
    keys: torch.Tensor | None = None
    window: torch.Tensor | None = None
    within: torch.Tensor | None = None


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Context], torch.Tensor]
"""(q [batch, heads, seq, head_dim], k and v with as many heads or fewer, context) -> the shape of q."""


class Attention(nn.Module):
    """Multi-head attention (arXiv:1706.03762) or grouped-query attention (arXiv:2305.13245).

    A lowering that cuts the sequence replaces ``attend``; one that fuses the projections replaces ``project``.
    """

    attend: Attend

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attend = attend
        self.head_dim = head_dim(config)
        query, key_value = config.heads * self.head_dim, config.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden, key_value, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden, key_value, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.hidden, bias=config.o_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm == "head":
            self.q_norm: nn.Module = RMSNorm(self.head_dim, config.norm_eps)
            self.k_norm: nn.Module = RMSNorm(self.head_dim, config.norm_eps)
        elif config.qk_norm == "all":
            self.q_norm, self.k_norm = AllHeadsNorm(query, config.norm_eps), AllHeadsNorm(key_value, config.norm_eps)

    def forward(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """[batch, seq, hidden] -> the same shape.

        The number of heads is read from the projections' outputs, never from the configuration, so that a
        tensor-parallel lowering may hand this code fewer heads; so is the sequence, which its projections may gather.
        """
        queries, keys, values = self.project(x)
        if self.qk_norm == "all":
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        batch, seq, _ = queries.shape
        split = (batch, seq, -1, self.head_dim)
        q, k = (heads.transpose(1, 2) for heads in self.normalise(queries.reshape(split), keys.reshape(split)))
        if context.cosines is not None and context.sines is not None:
            q, k = (rotate(heads, context.cosines, context.sines) for heads in (q, k))
        v = values.reshape(split).transpose(1, 2)
        out = self.attend(q, k, v, context)
        return self.o_proj(out.transpose(1, 2).reshape(batch, seq, -1))

    def normalise(self, queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both [batch, seq, heads, head_dim], before the rotation. A family with another QK norm overrides this."""
        return (self.q_norm(queries), self.k_norm(keys)) if self.qk_norm == "head" else (queries, keys)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[batch, seq, hidden] -> queries, keys and values, each [batch, seq, heads * head_dim]."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Context) -> torch.Tensor:
    """Softmax attention, FP32 inside. q: [batch, heads, seq, head_dim]; k and v may have fewer heads."""
    # Keys and values are repeated by hand: with enable_gqa the CPU kernel is not the fused one.
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask)


def document_mask(document_ids: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Causal mask inside documents: [batch, seq] ids -> bool [batch, 1, seq, seq].

    window: positions that are looked at, the own one included. Padding (id -1) looks at padding, so that no row of the
    softmax is empty.
    """
    same = (document_ids.unsqueeze(-1) == document_ids.unsqueeze(-2)).tril()
    return (same if window is None else same.triu(1 - window)).unsqueeze(1)
