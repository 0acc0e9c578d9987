"""Key-value heads that several ranks hold: each copy sees the gradient of its own queries only, so the copies add."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainer.backends.native.groups import MakeGroup
from trainer.parallel.heads import HeadLayout
from trainer.parallel.mesh import Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


@dataclass(frozen=True)
class SharedHead:
    """A key-value head, the group of the ranks that hold it, and where it is in this rank's parameters."""

    group: dist.ProcessGroup
    parts: tuple[tuple[str, tuple[slice, ...]], ...]


def shared_heads(
    plan: Plan, layout: HeadLayout, placements: Mapping[str, Placement], mesh: Mesh, make_group: MakeGroup
) -> list[SharedHead]:
    """The replicated heads of this rank. Makes process groups: every rank of the world has to call it.

    Under ZeRO a rank has some rows of a head; validation sees to it that its fellow holders have the same ones.
    """
    shared = []
    names = [name for name, rule in plan.match(placements).items() if rule.cut == "kv"]
    for head in range(layout.heads.key_value):
        holders = layout.holders(head)
        if len(holders) == 1:
            continue
        for group_of_rank in mesh.groups("tp"):
            ranks = [group_of_rank[holder] for holder in holders]
            group = make_group(ranks)
            if mesh.rank in ranks:
                parts = tuple((n, part) for n in names for part in _parts(placements[n], head, layout.heads.size))
                shared.append(SharedHead(group, parts))
    return [head for head in shared if head.parts]


def _parts(placement: Placement, head: int, size: int) -> Iterator[tuple[slice, ...]]:
    """Where this rank's rows of a head lie in its tensor."""
    for box in placement.boxes:
        low, high = max(box.offsets[0], head * size), min(box.offsets[0] + box.sizes[0], (head + 1) * size)
        if low < high:
            shift = box.local[0].start - box.offsets[0]
            yield (slice(low + shift, high + shift), *box.local[1:])


def add_copies(shared: list[SharedHead], gradient: Callable[[str], torch.Tensor]) -> None:
    """Sum the gradients of each replicated head over its copies, in place: one collective a head for all layers."""
    for head in shared:
        sum_over([gradient(name)[part] for name, part in head.parts], head.group)


def sum_over(views: Sequence[torch.Tensor], group: dist.ProcessGroup) -> None:
    """Sum tensors over a group, in place, by one collective."""
    flat = torch.cat([view.reshape(-1) for view in views])
    dist.all_reduce(flat, group=group)
    for view, total in zip(views, flat.split([view.numel() for view in views]), strict=True):
        view.copy_(total.view_as(view))
