"""Key-value heads that several ranks hold: each copy sees the gradient of its own queries only, so the copies add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainer.backends.native.groups import new_group
from trainer.parallel.heads import HeadLayout
from trainer.parallel.mesh import Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


@dataclass(frozen=True)
class SharedHead:
    """A key-value head, the group of the ranks that hold it, and where it is in this rank's parameters."""

    group: dist.ProcessGroup
    parts: tuple[tuple[str, tuple[slice, ...]], ...]


def shared_heads(plan: Plan, layout: HeadLayout, placements: Mapping[str, Placement], mesh: Mesh) -> list[SharedHead]:
    """The replicated heads of this rank. Makes process groups: every rank of the world has to call it."""
    rank, shared = mesh.coordinate("tp"), []
    local = [slot.key_value for slot in layout.slots(rank)]
    names = [name for name, rule in plan.match(placements).items() if rule.style == "kv"]
    for head in range(layout.heads.key_value):
        holders = layout.holders(head)
        if len(holders) == 1:
            continue
        for group_of_rank in mesh.groups("tp"):
            group = new_group([group_of_rank[holder] for holder in holders])
            if mesh.rank in group_of_rank and head in local:
                rows = slice(local.index(head) * layout.heads.size, (local.index(head) + 1) * layout.heads.size)
                parts = tuple((name, (rows, *[slice(None)] * (len(placements[name].shape) - 1))) for name in names)
                shared.append(SharedHead(group, parts))
    return shared


def add_copies(shared: list[SharedHead], tensors: Mapping[str, torch.Tensor]) -> None:
    """Sum the gradients of each replicated head over its copies, in place: one collective a head for all layers."""
    for head in shared:
        views = [tensors[name][part] for name, part in head.parts]
        flat = torch.cat([view.reshape(-1) for view in views])
        dist.all_reduce(flat, group=head.group)
        for view, total in zip(views, flat.split([view.numel() for view in views]), strict=True):
            view.copy_(total.view_as(view))
