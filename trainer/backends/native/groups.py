"""Process groups: one for everybody, one for each axis in use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from trainer.backends.common.peers import Peers
from trainer.parallel.mesh import AXES, DATA, Mesh
from trainer.run.world import World

MakeGroup = Callable[[Sequence[int]], dist.ProcessGroup]
"""A group of some ranks, with the timeout of training; every rank of the world has to call it."""


def join(
    mesh: Mesh, peers: Peers | None, make: MakeGroup, timeout: timedelta, collectives: str
) -> dict[str, dist.ProcessGroup]:
    """Meet all ranks; this rank's group of each axis whose size is above 1, and of the data axes together as ``data``.

    Collective. peers: met already; None: through the launch's variables. collectives: torch.distributed's name of the
    library. timeout: of a collective in training.
    """
    if not dist.is_initialized():
        peers = peers or Peers.join(World.from_environment(), timeout.total_seconds())
        with _quiet_gloo():
            dist.init_process_group(
                collectives, store=peers.store, rank=peers.rank, world_size=peers.size, timeout=timeout
            )
    wanted = {axis: mesh.groups(axis) for axis in AXES if mesh.size(axis) > 1}
    groups = {axis: group for axis, lists in wanted.items() if (group := _mine(mesh, lists, make)) is not None}
    used = [axis for axis in DATA if axis in groups]
    if used:
        data = groups[used[0]] if len(used) == 1 else _mine(mesh, mesh.groups(*DATA), make)
        assert data is not None
        groups["data"] = data
    return groups


def _mine(mesh: Mesh, lists: Sequence[Sequence[int]], make: MakeGroup) -> dist.ProcessGroup | None:
    """Make all the groups, as every rank has to, in the same order; the one that this rank is in."""
    mine = None
    for ranks in lists:
        group = make(ranks)
        if mesh.rank in ranks:
            mine = group
    return mine


def ends_of_pipeline(mesh: Mesh, make: MakeGroup) -> dist.ProcessGroup | None:
    """This rank's group of the first and the last pipeline rank, which share a tied head; None between them."""
    return _mine(mesh, [(ranks[0], ranks[-1]) for ranks in mesh.groups("pp")], make)


def new_group(ranks: Sequence[int], timeout: timedelta) -> dist.ProcessGroup:
    """A group of some ranks. torch gives a group without a timeout of its own half an hour, whatever the world has."""
    with _quiet_gloo():
        group: dist.ProcessGroup = dist.new_group(list(ranks), timeout=timeout)
    return group


@contextmanager
def _quiet_gloo() -> Iterator[None]:
    """gloo prints a line per rank and group to standard output, and no setting turns it off; errors are exceptions."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
