"""Collectives out of place: torch.distributed over gloo, torch_xla's on a device. A group of one does nothing."""

import torch
import torch.distributed as dist
import torch_xla.core.xla_model as xm

from ..utils import cpu_mode

_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


def all_reduce(x, group, op="sum"):
    """The sum or maximum over the group, in x's dtype."""
    if group.size() == 1:
        return x
    if not cpu_mode():
        return xm.all_reduce(op, x, groups=group._mesh, pin_layout=False)
    out = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, op=_OPS[op], group=group)
    return out


def all_gather(x, dim, group):
    """The group's tensors one after another along ``dim``."""
    if group.size() == 1:
        return x
    if not cpu_mode():
        return xm.all_gather(x, dim=dim % x.dim(), groups=group._mesh, pin_layout=False)
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x, group=group)
    return torch.cat(parts, dim)


def reduce_scatter(x, dim, group):
    """This rank's part along ``dim`` of the sum over the group."""
    if group.size() == 1:
        return x
    if x.shape[dim] % group.size():
        raise RuntimeError(f"dim {dim} of {tuple(x.shape)} does not divide into {group.size()}")
    if cpu_mode():
        return split(all_reduce(x, group), dim, group).contiguous()
    return xm.reduce_scatter(
        "sum", x, 1.0, scatter_dim=dim % x.dim(), shard_count=group.size(), groups=group._mesh, pin_layout=False
    )


def split(x, dim, group):
    """This rank's part along ``dim``."""
    if group.size() == 1:
        return x
    if x.shape[dim] % group.size():
        raise AssertionError(f"dim {dim} of {tuple(x.shape)} does not divide into {group.size()}")
    part = x.shape[dim] // group.size()
    return x.narrow(dim, group.rank() * part, part)
