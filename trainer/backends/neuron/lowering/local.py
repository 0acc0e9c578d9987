"""What a rank's tensor is made of: one parameter, or several fused ones, each with its place along dim 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.parallel.boxes import Box
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Rule


@dataclass(frozen=True)
class Piece:
    """A canonical parameter inside a local tensor: its rows begin at ``row``."""

    name: str
    placement: Placement
    rule: Rule
    row: int = 0

    @property
    def rows(self) -> int:
        """Its extent along dim 0, padding included."""
        return self.placement.local_shape[0]


@dataclass(frozen=True)
class Local:
    """A rank's tensor: its pieces, one above the other. copy: a pipeline's second copy of a tied parameter."""

    pieces: tuple[Piece, ...]
    copy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor before ZeRO-1 cuts it."""
        rows = sum(piece.rows for piece in self.pieces)
        return (rows, *self.pieces[0].placement.local_shape[1:])

    def boxes(self, first: int, last: int) -> Iterator[tuple[str, Placement, tuple[Box, ...]]]:
        """What rows [first, last) of the tensor hold, as boxes within those rows, by canonical name."""
        for piece in self.pieces:
            cut = (_moved(box, piece.row).rows(first, last) for box in piece.placement.boxes)
            here = tuple(replace(box, copy=box.copy + self.copy) for box in cut if box is not None)
            yield piece.name, piece.placement, here


def fuse(names: Sequence[str], placements: Mapping[str, Placement], rules: Mapping[str, Rule]) -> Local:
    """Several parameters in one tensor, in order."""
    pieces, row = [], 0
    for name in names:
        pieces.append(Piece(name, placements[name], rules[name], row))
        row += placements[name].local_shape[0]
    return Local(tuple(pieces))


def shard_rows(rows: int, rank: int, ranks: int) -> tuple[int, int]:
    """First and last row of a rank's shard: ZeRO-1 pads dim 0 to a multiple and cuts it evenly."""
    size = -(-rows // ranks)
    return rank * size, (rank + 1) * size


def _moved(box: Box, rows: int) -> Box:
    first = box.local[0]
    return replace(box, local=(slice(first.start + rows, first.stop + rows), *box.local[1:]))
