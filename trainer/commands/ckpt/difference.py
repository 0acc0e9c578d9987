"""diff: how far two checkpoints are apart, tensor by tensor, whatever the layouts that saved them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.checkpoint.index import Stored, read_index
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.slices import fill
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import read_state
from trainer.commands.ckpt.places import CommandError, checkpoint_of
from trainer.commands.ckpt.table import table, times
from trainer.errors import Problem
from trainer.parallel.boxes import Box, Placed

BLOCK = 1 << 24
"""Elements of each that are in memory at a time."""


@dataclass
class Apart:
    """The difference of two tensors so far. NaN against NaN is no difference; against a number it is NaN."""

    largest: float = 0.0
    """max |a - b|"""
    scale: float = 0.0
    """max |a|"""

    @property
    def relative(self) -> float:
        """max |a - b| / max |a|"""
        return self.largest / self.scale if self.scale else math.inf if self.largest else 0.0


def diff(one: str, other: str) -> Iterator[str]:
    """A row for each tensor that differs, the farthest first; then how many are equal. Raises CommandError."""
    paths = [checkpoint_of(one), checkpoint_of(other)]
    yield f"A {paths[0]}"
    yield f"B {paths[1]}"
    rows: list[tuple[float, tuple[str, ...]]] = []
    equal = 0
    for part in PARTS:
        indexes = [_read(path, part) for path in paths]
        for name in sorted({*indexes[0], *indexes[1]}):
            a, b = (index.get(name) for index in indexes)
            if a is None or b is None or a.shape != b.shape:
                rows.append((math.inf, (part, name, "", "", _unlike(a, b))))
                continue
            apart = _compare(name, paths, part, indexes)
            equal += apart.largest == 0
            if apart.largest != 0:
                numbers = (f"{apart.largest:.3e}", f"{apart.relative:.3e}")
                far = apart.relative if not math.isnan(apart.relative) else math.inf
                rows.append((far, (part, name, *numbers, _shape(a, b))))
    rows.sort(key=lambda row: -row[0])
    if rows:
        yield from table(
            [("part", "tensor", "max |A-B|", "/ max |A|", "shape"), *(row for _, row in rows)], right=(2, 3)
        )
    yield from _bases(paths)
    yield f"{equal:,} of {equal + len(rows):,} tensors are equal"


def _bases(paths: list[Path]) -> Iterator[str]:
    """Whether what they do not hold is the same."""
    try:
        a, b = (read_state(path).base for path in paths)
    except (OSError, Unsound) as error:
        raise _unreadable(paths[0], error) from None
    if a is not None and b is not None:
        why = a.unlike(b)
        yield f"both stand on {a}" if why is None else f"A stands on {a}, B on {b}: {why}"
    elif a is not None or b is not None:
        yield f"{'B' if a is None else 'A'} stands on {b if a is None else a}, the other holds all of its weights"


def _read(path: Path, part: str) -> Mapping[str, Stored]:
    try:
        return read_index(path / part)
    except (OSError, Unsound) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> CommandError:
    remedy = "scripts/ckpt.py verify says what is wrong with each checkpoint of the run"
    return CommandError(Problem("CHECKPOINT", str(path), f"can be read ({error})", remedy))


def _unlike(a: Stored | None, b: Stored | None) -> str:
    """Why two tensors cannot be compared."""
    if a is not None and b is not None:
        return f"A {times(a.shape)}, B {times(b.shape)}"
    only = a or b
    assert only is not None
    return f"{times(only.shape)}, in {'B' if a is None else 'A'} only"


def _shape(a: Stored, b: Stored) -> str:
    """With both dtypes, where they are not the same."""
    return times(a.shape) + (f"  {a.dtype} and {b.dtype}" if a.dtype != b.dtype else "")


def _compare(name: str, paths: list[Path], part: str, indexes: list[Mapping[str, Stored]]) -> Apart:
    """By blocks along dim 0."""
    apart, shape = Apart(), indexes[0][name].shape
    rows = max(1, BLOCK * shape[0] // max(1, math.prod(shape))) if shape else 1
    for first in range(0, shape[0] if shape else 1, rows):
        a, b = (
            _block(path, part, index, name, first, rows).double() for path, index in zip(paths, indexes, strict=True)
        )
        gap = torch.where(a.isnan() & b.isnan(), 0.0, torch.where(a == b, 0.0, (a - b).abs()))
        apart.largest = _larger(apart.largest, gap)
        apart.scale = _larger(apart.scale, a.abs().nan_to_num(0.0))
    return apart


def _larger(so_far: float, values: torch.Tensor) -> float:
    """NaN wins."""
    found = values.max().item() if values.numel() else 0.0
    return found if math.isnan(found) or found > so_far else so_far


def _block(path: Path, part: str, index: Mapping[str, Stored], name: str, first: int, rows: int) -> torch.Tensor:
    stored = index[name]
    offsets, sizes = [0] * len(stored.shape), list(stored.shape)
    if sizes:
        offsets[0], sizes[0] = first, min(rows, stored.shape[0] - first)
    values = torch.empty(sizes, dtype=getattr(torch, stored.dtype))
    box = Box(name, stored.shape, tuple(offsets), tuple(sizes), tuple(slice(0, n) for n in sizes))
    try:
        fill(path / part, index, {name: Placed(values, (box,), stored.shape)})
    except (OSError, Unsound) as error:
        raise _unreadable(path, error) from None
    return values
