"""Context parallelism: each rank has some positions of every sample; keys and values are gathered for attention.

A rank holds one chunk from the front of a sample and its mirror image from the back, so that causal attention costs
every rank the same (Brandon et al. 2023, arXiv:2311.09431, balance a ring in a like manner; Llama 3, arXiv:2407.21783,
section 3.3.2, cuts and gathers so).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.backends.common.share import Share
from trainer.backends.native.lowering.collectives import gather
from trainer.parallel.plan import Plan


@dataclass(frozen=True)
class GatheredAttention:
    """Attention of this rank's queries to everybody's keys and values, by the model's own function."""

    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    group: dist.ProcessGroup

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
        """As trainer.models.attention.attend; dim 2 is the sequence. Keys and values travel together."""
        keys, values = gather(torch.stack((k, v)), 3, self.group).unbind()
        return self.attend(q, keys, values, context)


def lower(model: nn.Module, plan: Plan, share: Share, group: dist.ProcessGroup) -> None:
    """Replace the decoder's mask and every attention, in place, and tell the rotary embedding how a sample is cut."""
    decoder: Any = model.get_submodule(plan.decoder)
    decoder.mask = share.mask
    decoder.rotary.parts = share.ranks
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "attend")]
    for module in modules:
        module.attend = GatheredAttention(module.attend, group)
