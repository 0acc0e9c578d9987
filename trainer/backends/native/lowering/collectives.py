"""Collectives with gradients. Tensor parallelism enters and leaves a block by them (Shoeybi et al. 2019,
arXiv:1909.08053, section 3: its f and g); with the sequence cut between blocks they gather and scatter (Korthikanti et
al. 2022, arXiv:2205.05198, section 4.2.2: g and its conjugate).
"""

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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return all_gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return reduce_scatter(gradients[0], ctx.dim, ctx.group), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return reduce_scatter(x, dim, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return all_gather(gradients[0], ctx.dim, ctx.group), None, None


def enter(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank goes on with the same activations, each with its part of the weights: gradients add up."""
    result: torch.Tensor = _Enter.apply(x, group)
    return result


def leave(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank has a part of a sum; all get the whole. Their gradient is the same on all of them."""
    result: torch.Tensor = _Leave.apply(x, group)
    return result


def gather(x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank has a part along a dim; all get the whole, and each uses it in its own way: gradients add up."""
    result: torch.Tensor = _Gather.apply(x, dim, group)
    return result


def scatter(x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank has a part of a sum; each gets the whole of its own part along a dim."""
    result: torch.Tensor = _Scatter.apply(x, dim, group)
    return result


def all_gather(x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """The ranks' parts put together along a dim, in rank order. Without gradient."""
    part = x.detach().movedim(dim, 0).contiguous()
    whole = part.new_empty((part.shape[0] * dist.get_world_size(group), *part.shape[1:]))
    dist.all_gather_into_tensor(whole, part, group=group)
    return whole.movedim(0, dim).contiguous()


def reduce_scatter(x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """This rank's part, along a dim, of the sum over the ranks. Without gradient."""
    whole = x.detach().movedim(dim, 0).contiguous()
    part = whole.new_empty((whole.shape[0] // dist.get_world_size(group), *whole.shape[1:]))
    dist.reduce_scatter_tensor(part, whole, group=group)
    return part.movedim(0, dim).contiguous()
