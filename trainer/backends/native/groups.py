"""Process groups: one for everybody, one for each axis in use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from trainer.parallel.mesh import AXES, DATA, Mesh
from trainer.run.world import attempt


def join(mesh: Mesh, timeout: timedelta, collectives: str) -> dict[str, dist.ProcessGroup]:
    """Meet all ranks; this rank's group of each axis whose size is above 1, and of the data axes together as ``data``.

    Collective. collectives: torch.distributed's name of the library.
    """
    if not dist.is_initialized():
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store = dist.PrefixStore(attempt(), store)
        with _quiet_gloo():
            dist.init_process_group(collectives, store=store, rank=rank, world_size=size, timeout=timeout)
    wanted = {axis: mesh.groups(axis) for axis in AXES if mesh.size(axis) > 1}
    groups = {axis: group for axis, lists in wanted.items() if (group := _mine(mesh, lists)) is not None}
    used = [axis for axis in DATA if axis in groups]
    if used:
        data = groups[used[0]] if len(used) == 1 else _mine(mesh, mesh.groups(*DATA))
        assert data is not None
        groups["data"] = data
    return groups


def _mine(mesh: Mesh, lists: Sequence[Sequence[int]]) -> dist.ProcessGroup | None:
    """Make all the groups, as every rank has to, in the same order; the one that this rank is in."""
    mine = None
    for ranks in lists:
        group = new_group(ranks)
        if mesh.rank in ranks:
            mine = group
    return mine


def ends_of_pipeline(mesh: Mesh) -> dist.ProcessGroup | None:
    """This rank's group of the first and the last pipeline rank, which share a tied head; None between them."""
    return _mine(mesh, [(ranks[0], ranks[-1]) for ranks in mesh.groups("pp")])


def new_group(ranks: Sequence[int]) -> dist.ProcessGroup:
    """A group of some ranks; every rank of the world has to call it."""
    with _quiet_gloo():
        group: dist.ProcessGroup = dist.new_group(list(ranks))
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
