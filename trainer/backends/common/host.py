"""Small host values over all ranks, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class HostExchange:
    """Of all ranks, or alone. rank, size: in the group. calls: exchanges until now."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """group: a gloo group; None: this is the only process."""
        self.group, self._alone = group, group is None
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self.calls = 0

    def sum(self, values: Sequence[int]) -> list[int]:
        """Sums over the ranks."""
        self.calls += 1
        if self._alone:
            return list(values)
        sums = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(sums, group=self.group)
        return [int(value) for value in sums]

    def broadcast(self, value: int) -> int:
        """Rank 0's value. A sum and no broadcast: nobody leaves it, and perhaps the group, before all have come."""
        return self.sum([value if self.rank == 0 else 0])[0]

    def gather(self, mine: bytes) -> list[bytes]:
        """Every rank's bytes, by rank in the group. Nothing is unpickled, as torch's object collectives would."""
        self.calls += 1
        if self._alone:
            return [mine]
        ranks = self.size
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(ranks)]
        dist.all_gather(lengths, torch.tensor(len(mine)), group=self.group)
        sizes = [int(length) for length in lengths]
        padded = torch.zeros(max(1, *sizes), dtype=torch.uint8)
        padded[: len(mine)] = torch.frombuffer(bytearray(mine), dtype=torch.uint8) if mine else padded[:0]
        everyone = [torch.empty_like(padded) for _ in range(ranks)]
        dist.all_gather(everyone, padded, group=self.group)
        return [one[:size].numpy().tobytes() for one, size in zip(everyone, sizes, strict=True)]
