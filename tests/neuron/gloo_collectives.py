"""torch_xla's collectives over gloo: same signatures, in place where they are, on any dtype that gloo knows (BF16 too).

Groups are XLA's replica groups, a list of lists of ranks that names the groups of *all* ranks; a ProcessGroup will do
as well. Arguments that only concern the compiler (pin_layout, bucket sizes) are taken and ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import new_group  # torch_xla replaces the one in torch.distributed

Groups = Sequence[Sequence[int]] | dist.ProcessGroup | None
_OPERATIONS = {
    "sum": dist.ReduceOp.SUM,
    "mul": dist.ReduceOp.PRODUCT,
    "min": dist.ReduceOp.MIN,
    "max": dist.ReduceOp.MAX,
    "and": dist.ReduceOp.BAND,
    "or": dist.ReduceOp.BOR,
}
_made: dict[tuple[int, ...], dist.ProcessGroup] = {}


def process_group(groups: Groups) -> dist.ProcessGroup:
    """The one of the groups that this rank is in; made on first use, which is collective over its members only."""
    if isinstance(groups, dist.ProcessGroup):
        return groups
    if not groups:
        return cast(dist.ProcessGroup, dist.group.WORLD)
    rank = dist.get_rank()
    mine = [tuple(int(member) for member in group) for group in groups if rank in group]
    if len(mine) != 1:
        raise ValueError(f"rank {rank} is in {len(mine)} of the replica groups {groups}")
    if mine[0] not in _made:
        # Local: the other groups of the list may belong to pipeline stages that are busy, or come in another order.
        _made[mine[0]] = new_group(list(mine[0]), backend="gloo", use_local_synchronization=True)
    return _made[mine[0]]


def _order(groups: Groups, group: dist.ProcessGroup) -> list[int]:
    """Ranks within the process group in XLA's order, which is that of the list; torch sorts what it is given."""
    if not groups or isinstance(groups, dist.ProcessGroup):
        return list(range(group.size()))
    [mine] = [list(members) for members in groups if dist.get_rank() in members]
    return [sorted(mine).index(member) for member in mine]


@torch.no_grad()
def all_reduce(
    reduce_type: str, inputs: Any, scale: float = 1.0, groups: Groups = None, pin_layout: bool = True
) -> Any:
    """A tensor gives a new one; a list is reduced in place and returned."""
    if isinstance(inputs, torch.Tensor):
        return all_reduce(reduce_type, [inputs.detach().clone()], scale, groups)[0]
    group = process_group(groups)
    for tensor in inputs:
        dense = tensor.detach().contiguous()
        dist.all_reduce(dense, _OPERATIONS[reduce_type], group)
        if scale != 1.0:
            dense.mul_(scale)
        if dense.data_ptr() != tensor.data_ptr():
            tensor.copy_(dense)
    return inputs


@torch.no_grad()
def all_gather(
    value: Any, dim: int = 0, groups: Groups = None, output: Any = None, pin_layout: bool = True, **_: Any
) -> Any:
    """Parts of the group's ranks, in its order, concatenated along ``dim``; of a list, each tensor's."""
    if not isinstance(value, torch.Tensor):
        gathered = [all_gather(tensor, dim, groups) for tensor in value]
        return gathered if output is None else [to.copy_(of) for to, of in zip(output, gathered, strict=True)]
    group, part = process_group(groups), value.detach().contiguous()
    parts = [torch.empty_like(part) for _ in range(group.size())]
    dist.all_gather(parts, part, group)
    whole = torch.cat([parts[rank] for rank in _order(groups, group)], dim)
    return whole if output is None else output.copy_(whole)


@torch.no_grad()
def reduce_scatter(
    reduce_type: str,
    input: Any,
    scale: float,
    scatter_dim: int,
    shard_count: int,
    groups: Groups = None,
    output: Any = None,
    pin_layout: bool = True,
    **_: Any,
) -> Any:
    """This rank's slice along ``scatter_dim`` of the reduced tensor; of a list, each tensor's."""
    if not isinstance(input, torch.Tensor):
        pieces = [reduce_scatter(reduce_type, tensor, scale, scatter_dim, shard_count, groups) for tensor in input]
        return pieces if output is None else [to.copy_(of) for to, of in zip(output, pieces, strict=True)]
    group = process_group(groups)
    if shard_count != group.size() or input.shape[scatter_dim] % shard_count:
        raise ValueError(f"{shard_count} shards of {tuple(input.shape)} along {scatter_dim} for {group.size()} ranks")
    whole = all_reduce(reduce_type, input, scale, group)
    place = _order(groups, group).index(group.rank())
    shard = whole.chunk(shard_count, scatter_dim)[place].contiguous()
    return shard if output is None else output.copy_(shard)


def all_gather_bucketized(
    input_list: Sequence[torch.Tensor],
    dim: int = 0,
    groups: Groups = None,
    output: Any = None,
    pin_layout: bool = False,
    bucket_cap_mb: int = 160,
) -> Any:
    """all_gather of a list; buckets change no value."""
    return all_gather(list(input_list), dim, groups, output)


def reduce_scatter_bucketized(
    reduce_type: str,
    input_list: Sequence[torch.Tensor],
    scale: float,
    scatter_dim: int,
    shard_count: int,
    groups: Groups = None,
    output: Any = None,
    pin_layout: bool = False,
    bucket_cap_mb: int = 160,
) -> Any:
    """reduce_scatter of a list; buckets change no value."""
    return reduce_scatter(reduce_type, list(input_list), scale, scatter_dim, shard_count, groups, output)


def rendezvous(tag: str, payload: bytes = b"", replicas: Sequence[int] = ()) -> list[bytes]:
    """Wait for all ranks; everyone's payload in the order of ranks."""
    if not dist.is_initialized():
        return [payload]
    payloads: list[bytes] = [b""] * dist.get_world_size()
    dist.all_gather_object(payloads, payload)
    return payloads


REDIRECTED = (
    all_reduce,
    all_gather,
    reduce_scatter,
    all_gather_bucketized,
    reduce_scatter_bucketized,
    rendezvous,
)
"""What replaces the function of the same name in torch_xla.core.xla_model."""
