"""What timeout each process group of a rank has."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _world

from tests.distributed.matrix_worker import bring_up


def timeouts(layout: str) -> dict[str, float]:
    """Seconds by the ranks of the group and its number; with everything made that makes groups."""
    backend, _, _ = bring_up(layout, "fp32")
    found = {}
    for number, group in enumerate(_world.pg_map):
        ranks = dist.get_process_group_ranks(group)
        options = group._get_backend(torch.device("cpu")).options
        found[f"{number}: {ranks}"] = options._timeout.total_seconds()
    backend.close()
    return found
