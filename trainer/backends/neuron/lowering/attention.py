"""Attention on Trainium: the NKI flash kernel where shapes and masks allow it; elsewhere plain operators, on all keys
at once where there is one block of them, else block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from neuronx_distributed.parallel_layers.mappings import gather_from_sequence_parallel_region

from trainer.backends.common.share import Share
from trainer.backends.common.visible import Visible
from trainer.backends.neuron.lowering.blockwise import MASKED, blockwise_attend
from trainer.trainium import blocks

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor]
"""What trainer.models.attention.attend is."""


def flash_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
    """As trainer.models.attention.attend, by the NKI kernel: causal, no mask.

    The kernel wants [batch, heads, head_dim, seq], and as many heads in keys and values as in queries.
    """
    from neuronx_distributed.kernels.flash_attn import nki_flash_attn_func

    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    turned = [tensor.transpose(2, 3) for tensor in (q, k, v)]
    result: torch.Tensor = nki_flash_attn_func(*turned, lnc=1, causal=True, mixed_precision=True)
    return result


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
    """As trainer.models.attention.attend, without a kernel. context.mask: as Masks makes it."""
    compute = blockwise_attend if isinstance(context.mask, Visible) else plain_attend
    return compute(q, k, v, context)


@dataclass(frozen=True)
class Masks:
    """Takes the place of trainer.models.attention.document_mask in front of ``attend``. share: this rank's queries."""

    share: Share

    def __call__(self, document_ids: torch.Tensor, window: int | None = None) -> torch.Tensor | Visible:
        """[batch, seq] ids of whole samples -> a dense mask of one block; of more blocks there is never one."""
        visible = self.share.visible(document_ids, window)
        return visible if blocks.is_blockwise(document_ids.shape[1]) else visible.mask()


def plain_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
    """As trainer.models.attention.attend: products in the model's dtype, the softmax between them in FP32.

    PyTorch's own decomposition, which XLA gets, turns BF16 into FP32 before the products: a quarter of a core's rate.
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = torch.matmul(q, k.transpose(2, 3)).float() * q.shape[-1] ** -0.5
    shares = torch.softmax(scores.masked_fill(~context.mask, MASKED), dim=-1)
    return torch.matmul(shares.to(v.dtype), v)


@dataclass(frozen=True)
class GatheredAttention:
    """Attention of this rank's queries to everybody's keys and values, over the context-parallel ranks."""

    attend: Attend
    group: Any

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
        """As trainer.models.attention.attend; dim 2 is the sequence. Keys and values travel together."""
        both = torch.cat((k, v), dim=1)
        keys, values = gather_from_sequence_parallel_region(both, 2, process_group=self.group).chunk(2, dim=1)
        return self.attend(q, keys, values, context)
