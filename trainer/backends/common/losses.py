"""Losses of microbatches that the ranks have found, each its own: summed, or every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist

from trainer.backends.base import GoOn
from trainer.batch import Batch
from trainer.parallel.mesh import Mesh

Run = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]
"""A microbatch -> its summed loss and its number of targets."""


def losses_of(run: Run, microbatches: Sequence[Batch], go_on: GoOn) -> Iterator[tuple[float, int]]:
    """Loss (nats) and targets of each, until ``go_on`` ends it."""
    for index, microbatch in enumerate(microbatches):
        if not go_on(index):
            return
        loss, targets = run(microbatch)
        yield loss.item(), int(targets.item())


def summed(nats: float, targets: float, ended: bool, group: dist.ProcessGroup | None) -> tuple[float, int] | None:
    """Over the ranks of the group, in FP64; None where one of them has ``ended`` early.

    nats, targets: this rank's; of what several ranks have found, its part.
    """
    sums = torch.tensor([nats, targets, float(ended)], dtype=torch.float64)
    if group is not None:
        dist.all_reduce(sums, group=group)
    return None if sums[2] else (sums[0].item(), round(sums[1].item()))


def every(
    losses: Sequence[float] | None, count: int, mesh: Mesh, group: dist.ProcessGroup | None
) -> list[float] | None:
    """Those of all data-parallel ranks, rank 0's first; None where a rank has found fewer than ``count``.

    losses: this rank's part of each microbatch, which the ranks of the group that share one add up.
    """
    found = list(losses or ())
    places = torch.zeros(mesh.size("dp") * count + 1, dtype=torch.float64)
    if len(found) < count:
        places[-1] = 1.0
    else:
        first = mesh.coordinate("dp") * count
        places[first : first + count] = torch.tensor(found, dtype=torch.float64)
    if group is not None:
        dist.all_reduce(places, group=group)
    return None if places[-1] else places[:-1].tolist()
