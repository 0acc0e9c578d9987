"""What a recipe's sharding plan comes to, for people: every parameter with its style, local shape and boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from trainer.config import Config
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.parallel.boxes import Box
from trainer.parallel.heads import lay_out
from trainer.parallel.placement import Placement


def describe_plan(config: Config, rank: int) -> Iterator[str]:
    """Lines about what tensor-parallel rank ``rank`` holds; pipeline stages are not told apart.

    Raises ConfigError when the plan does not fit the model or the layout.
    """
    model, tp = config.model, config.parallel.tp
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in CausalLM(model).named_parameters()}
    plan = sharding_plan(model)
    rules, placed = plan.match(shapes), plan.place(shapes, tp, rank)
    total = sum(math.prod(shape) for shape in shapes.values())
    local = sum(math.prod(placement.local_shape) for placement in placed.values())
    yield f"{model.name}: {total:,} parameters over tensor parallel {tp}; rank {rank} holds {local:,}"
    yield f"  that is {local * tp / total:.4f} x the even share: norms are replicated, and {lay_out(plan.heads, tp)}"
    rows = [("parameter", "style", "shape", "local shape", "boxes of this rank")]
    for name, placement in placed.items():
        shape, local_shape = times(placement.shape), times(placement.local_shape)
        rows.append((name, str(rules[name]), shape, local_shape, boxes(placement)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]])


def times(shape: tuple[int, ...]) -> str:
    """A shape as people write it."""
    return " x ".join(map(str, shape))


def boxes(placement: Placement) -> str:
    """Global extents of the boxes; where in the local tensor each lies, when that is not plain."""
    if not placement.boxes:
        return "none: padding only"
    return "; ".join(_box(box, plain=len(placement.boxes) == 1 and not placement.padded) for box in placement.boxes)


def _box(box: Box, plain: bool) -> str:
    extent = ", ".join(f"{o}:{o + n}" for o, n in zip(box.offsets, box.sizes, strict=True))
    local = "" if plain else f" at [{', '.join(f'{s.start}:{s.stop}' for s in box.local)}]"
    return f"[{extent}]{local}{f' copy {box.copy}' if box.copy else ''}"
