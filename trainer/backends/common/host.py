"""Small host integers over all ranks, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class HostExchange:
    """group: of all ranks, over gloo; None: torch's default group. alone: this is the only process."""

    def __init__(self, group: dist.ProcessGroup | None, alone: bool) -> None:
        self._group, self._alone = group, alone

    def sum(self, values: Sequence[int]) -> list[int]:
        """Sums over the ranks."""
        if self._alone:
            return list(values)
        sums = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(sums, group=self._group)
        return [int(value) for value in sums]

    def broadcast(self, value: int) -> int:
        """Rank 0's value."""
        if self._alone:
            return value
        holder = torch.tensor(value, dtype=torch.int64)
        dist.broadcast(holder, 0, group=self._group)
        return int(holder.item())
