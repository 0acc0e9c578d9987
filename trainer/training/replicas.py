"""Whether ranks that hold the same part of a tensor hold the same bytes: a checksum of each box, compared by its place.

Boxes carry global coordinates, so one comparison covers every layout: copies over the data axes, tensors that tensor
parallelism replicates, key-value heads that several ranks have, a tied head on the last pipeline stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from trainer.backends.base import Backend
from trainer.errors import Problem, ReplicasError
from trainer.parallel.boxes import Box, Placed

ROW = 4096
"""64-bit words that are summed before their place counts."""
SHOWN = 4
_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, as a multiplier in D. Knuth, TAOCP 3, section 6.4
_LIST = np.dtype([("place", "<u8"), ("sum", "<u8")])


def checksum(values: torch.Tensor) -> int:
    """Of a tensor's bytes, in order: rows of 64-bit words are summed modulo 2^64, and the sums weighted by their place.

    A change of one row always changes it; it runs about as fast as memory is read.
    """
    data = values.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = data.numel() // (8 * ROW) * 8 * ROW
    sums = [data[:whole].view(torch.int64).view(-1, ROW).sum(1)] if whole else []
    if whole < data.numel():
        rest = torch.zeros(8 * ROW, dtype=torch.uint8)
        rest[: data.numel() - whole] = data[whole:]
        sums.append(rest.view(torch.int64).sum(0, keepdim=True))
    if not sums:
        return 0
    rows = torch.cat(sums).numpy().view(np.uint64)
    weights = np.arange(1, 2 * len(rows), 2, dtype=np.uint64) * np.uint64(_ODD)  # odd: no bit of a sum is lost
    return int((rows * weights).sum(dtype=np.uint64))


@dataclass(frozen=True)
class Copy:
    """A box of this rank, and what is in it. kind: weights, masters or moments."""

    kind: str
    box: Box
    values: torch.Tensor

    @property
    def place(self) -> int:
        """64 bits of what it is called and where it lies, the same on every rank that holds it."""
        text = f"{self.kind} {self.box.name} {self.box.offsets} {self.box.sizes}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def __str__(self) -> str:
        part = "" if self.box.sizes == self.box.shape else f" from {list(self.box.offsets)} of {list(self.box.sizes)}"
        return f"{self.kind} of {self.box.name}{part}"


def copies_of(held: Mapping[str, Mapping[str, Placed]]) -> Iterator[Copy]:
    """All boxes of this rank. A tensor that is master and weight at once is looked at once."""
    seen: set[tuple[int, int]] = set()
    for kind, tensors in held.items():
        for name, placed in tensors.items():
            for box in placed.boxes:
                values = box.of(placed.tensor)
                memory = (values.data_ptr(), values.nbytes)
                if memory not in seen or not values.nbytes:
                    seen.add(memory)
                    moment = name.removesuffix(box.name).rstrip(".")
                    yield Copy(f"{kind} {moment}".rstrip(), box, values)


def compare_replicas(backend: Backend, step: int) -> None:
    """Raise ReplicasError on every rank where any two hold other bytes at one place. Collective; after ``store``."""
    if backend.saving.size == 1:
        return
    mine = {copy.place: copy for copy in copies_of(backend.copies())}
    sums = np.array([(place, checksum(copy.values)) for place, copy in mine.items()], dtype=_LIST)
    everyone = [np.frombuffer(one, dtype=_LIST) for one in backend.saving.gather(sums.tobytes())]
    ranks = np.repeat(np.arange(len(everyone)), [len(one) for one in everyone])
    unlike = _unlike(np.concatenate(everyone), ranks)
    if not unlike:
        return
    texts = [text for place in unlike if (text := _told(mine, place)) is not None]
    names = _names(unlike, backend.saving.gather("\n".join(texts).encode()))
    shown = [f"{names.get(place, hex(place))}: {_grouped(found)}" for place, found in list(unlike.items())[:SHOWN]]
    more = f"; and {len(unlike) - SHOWN} more" if len(unlike) > SHOWN else ""
    rule = "copies are equal to the byte on every rank; a bit has flipped, or ranks have computed different things"
    remedy = "the same command goes on from the newest checkpoint; look at these ranks' machines if it happens again"
    raise ReplicasError(Problem(f"replicas at step {step}", "; ".join(shown) + more, rule, remedy))


def _told(mine: Mapping[int, Copy], place: int) -> str | None:
    return f"{place} {mine[place]}" if place in mine else None


def _names(unlike: Mapping[int, object], texts: list[bytes]) -> dict[int, str]:
    lines = [line.partition(" ") for text in texts for line in text.decode().splitlines()]
    return {int(place): name for place, _, name in lines if int(place) in unlike}


def _unlike(listed: np.ndarray, ranks: np.ndarray) -> dict[int, dict[int, list[int]]]:
    """Places where sums differ: {place: {sum: ranks}}. Sorted once: the cost is that of the list's length."""
    order = np.lexsort((listed["sum"], listed["place"]))
    places, sums, ranks = listed["place"][order], listed["sum"][order], ranks[order]
    differs = (places[1:] == places[:-1]) & (sums[1:] != sums[:-1])
    found: dict[int, dict[int, list[int]]] = {}
    for place in np.unique(places[1:][differs]):
        for index in range(np.searchsorted(places, place, "left"), np.searchsorted(places, place, "right")):
            found.setdefault(int(place), {}).setdefault(int(sums[index]), []).append(int(ranks[index]))
    return found


def _grouped(found: Mapping[int, list[int]]) -> str:
    """Which ranks hold what, the fewest first."""
    groups = sorted(found.values(), key=lambda ranks: (len(ranks), ranks))
    return " against ".join(
        f"rank {', '.join(map(str, group[:8]))}{' ...' if len(group) > 8 else ''}" for group in groups
    )
