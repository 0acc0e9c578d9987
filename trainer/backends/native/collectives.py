"""The two ends of a tensor-parallel block (Shoeybi et al. 2019, arXiv:1909.08053, section 3: its f and g)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        # A copy: autograd may hand the same gradient to somebody else.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def enter(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank goes on with the same activations, each with its part of the weights: gradients add up."""
    result: torch.Tensor = _Enter.apply(x, group)
    return result


def leave(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank has a part of a sum; all get the whole. Their gradient is the same on all of them."""
    result: torch.Tensor = _Leave.apply(x, group)
    return result


def gather_last_dim(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Parts of the last dim, put together on every rank. Without gradient: for sampling and tests."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.detach().contiguous(), group=group)
    return torch.cat(parts, dim=-1)
