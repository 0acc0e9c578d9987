"""Where one rank's part of a parameter lies: segments along the dim that is cut, and the boxes that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainer.parallel.boxes import Box, whole_box
from trainer.parallel.heads import Heads, lay_out


class Uncuttable(Exception):
    """A dim that the number of ranks does not divide, or that is not what the plan takes it for."""

    def __init__(self, rule: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule, self.remedy = rule, remedy


@dataclass(frozen=True)
class Segment:
    """A run of indices along the cut dim. copy: which replica of it this rank holds, 0 the first."""

    local: int
    offset: int
    size: int
    copy: int = 0


@dataclass(frozen=True)
class Placement:
    """A rank's part of a parameter. What no box covers is padding: zero, and kept zero."""

    shape: tuple[int, ...]
    """Of the global parameter, without padding."""
    local_shape: tuple[int, ...]
    boxes: tuple[Box, ...]

    @property
    def padded(self) -> bool:
        """Whether the local tensor is larger than its boxes."""
        return sum(math.prod(box.sizes) for box in self.boxes) < math.prod(self.local_shape)

    @property
    def whole(self) -> bool:
        """Whether this rank holds the parameter as it is."""
        return self.local_shape == self.shape

    def runs(self, dim: int) -> tuple[tuple[int, int], ...]:
        """(first global index, how many) along a dim that is cut, in local order. Padding has indices of its own,
        behind the last.
        """
        found, place, beyond = [], 0, self.shape[dim]
        for box in sorted(self.boxes, key=lambda each: each.local[dim].start):
            start = box.local[dim].start
            if start > place:
                found.append((beyond, start - place))
                beyond += start - place
            found.append((box.offsets[dim], box.sizes[dim]))
            place = start + box.sizes[dim]
        if place < self.local_shape[dim]:
            found.append((beyond, self.local_shape[dim] - place))
        return tuple(found)


def whole(name: str, shape: tuple[int, ...], copy: int) -> Placement:
    """A parameter that is not cut: every rank holds a copy."""
    return Placement(shape, shape, (whole_box(name, shape, copy),))


def cut(name: str, shape: tuple[int, ...], dim: int, local_extent: int, segments: Iterable[Segment]) -> Placement:
    """A parameter of which this rank holds segments along ``dim``."""
    boxes = tuple(_box(name, shape, dim, segment) for segment in segments)
    return Placement(shape, (*shape[:dim], local_extent, *shape[dim + 1 :]), boxes)


def _box(name: str, shape: tuple[int, ...], dim: int, segment: Segment) -> Box:
    offsets, sizes = [0] * len(shape), list(shape)
    offsets[dim], sizes[dim] = segment.offset, segment.size
    local = [slice(0, n) for n in shape]
    local[dim] = slice(segment.local, segment.local + segment.size)
    return Box(name, shape, tuple(offsets), tuple(sizes), tuple(local), copy=segment.copy)


def even(extent: int, tp: int, rank: int) -> tuple[int, list[Segment]]:
    """Local extent and the one segment of an even cut."""
    if extent % tp:
        divisors = ", ".join(str(n) for n in range(1, min(extent, 64) + 1) if extent % n == 0)
        larger = -(-extent // tp) * tp
        raise Uncuttable(f"parallel.tp ({tp}) divides it", f"parallel.tp out of {divisors}, or make it {larger}")
    size = extent // tp
    return size, [Segment(0, rank * size, size)]


def query_heads(extent: int, heads: Heads, tp: int, rank: int) -> tuple[int, list[Segment]]:
    """A dim of query heads, cut so that each stands beside its key-value head; padded where it must be."""
    _check(extent, heads.query, heads.size, "query")
    layout = lay_out(heads, tp)
    segments = []
    for position, slot in enumerate(layout.slots(rank)):
        local = position * layout.queries_per_slot * heads.size
        if slot.queries:
            segments.append(Segment(local, slot.queries.start * heads.size, len(slot.queries) * heads.size))
    return layout.queries_per_rank * heads.size, list(_joined(segments))


def key_value_heads(extent: int, heads: Heads, tp: int, rank: int) -> tuple[int, list[Segment]]:
    """A dim of key-value heads; the ranks beyond the first that hold one hold copies."""
    _check(extent, heads.key_value, heads.size, "key-value")
    layout = lay_out(heads, tp)
    segments = [
        Segment(position * heads.size, slot.key_value * heads.size, heads.size, slot.copy)
        for position, slot in enumerate(layout.slots(rank))
    ]
    return layout.slots_per_rank * heads.size, list(_joined(segments))


def _check(extent: int, count: int, size: int, kind: str) -> None:
    if extent != count * size:
        remedy = "correct the plan's rule, or the heads that the plan was made with"
        raise Uncuttable(f"its {kind} heads make {count} x {size} = {count * size}", remedy)


def _joined(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Neighbours on the rank and in the parameter, of the same copy, as one: fewer boxes."""
    last: Segment | None = None
    for segment in segments:
        if last is None:
            last = segment
        elif (last.local + last.size, last.offset + last.size, last.copy) == (
            segment.local,
            segment.offset,
            segment.copy,
        ):
            last = Segment(last.local, last.offset, last.size + segment.size, last.copy)
        else:
            yield last
            last = segment
    if last is not None:
        yield last
