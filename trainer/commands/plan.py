"""What a recipe's layout and sharding plan come to, for people: stages, and a rank's parameters with their boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from trainer.config.schema import Config
from trainer.models.family import Family, family_of
from trainer.parallel.boxes import Box
from trainer.parallel.heads import lay_out
from trainer.parallel.mesh import Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.stages import local_stages, stage_costs
from trainer.rules.quantities import pipeline_stages


def describe_plan(config: Config, rank: int) -> Iterator[str]:
    """Lines about the layout and about what ``rank`` holds of one copy of the model (dp 1), before ZeRO cuts it again.

    Raises ConfigError when the plan does not fit the model or the layout.
    """
    model, parallel = config.model, config.parallel
    mesh = Mesh(rank, tp=parallel.tp, cp=parallel.cp, pp=parallel.pp)
    stages, family = pipeline_stages(config), family_of(model, config.adapter)
    plan, whole = family.plan, _shapes(family, None)
    total = sum(math.prod(shape) for shape in whole.values())
    yield f"{model.name}: {total:,} parameters over tp {parallel.tp} x cp {parallel.cp} x pp {parallel.pp}"
    yield from _layout(config, family, stages)
    mine = local_stages(mesh.coordinate("pp"), parallel.pp, parallel.pipeline.virtual_stages) if stages else (0,)
    placed: dict[str, Placement] = {}
    for stage in mine:
        shapes = _shapes(family, stages[stage]) if stages else whole
        placed |= plan.place(shapes, parallel.tp, mesh.coordinate("tp"))
    local = sum(math.prod(placement.local_shape) for placement in placed.values())
    where = f"tensor-parallel rank {mesh.coordinate('tp')}"
    where += f", stage {', '.join(map(str, mine))} of {len(stages)}" if stages else ""
    yield f"rank {rank} ({where}) holds {local:,}; {lay_out(plan.heads, parallel.tp)}"
    rules = plan.match(placed)
    rows = [
        ("parameter", "cut", "summed over tp", "init", "decay", "trained", "shape", "local shape", "boxes of this rank")
    ]
    for name, placement in placed.items():
        shape, local_shape = times(placement.shape), times(placement.local_shape)
        rule = rules[name]
        says = (
            str(rule),
            rule.summed,
            str(rule.init),
            "yes" if rule.decay else "no",
            "yes" if rule.trainable else "no",
        )
        rows.append((name, *says, shape, local_shape, boxes(placement)))
    yield from _table(rows)


def _shapes(family: Family, layers: range | None) -> Mapping[str, tuple[int, ...]]:
    """Global shapes by canonical name: of the whole model, or of a stage with these layers."""
    with torch.device("meta"):
        model: Any = family.build()
    if layers is not None:
        model.keep_stage(layers)
    names = model.canonical_names()
    return {names[name]: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _layout(config: Config, family: Family, stages: tuple[range, ...]) -> Iterator[str]:
    """Options of the layout, and a row for each pipeline stage."""
    parallel, pipe = config.parallel, config.parallel.pipeline
    again = f"{parallel.recompute}, every {parallel.recompute_every}. layer" if parallel.recompute != "none" else "none"
    yield f"  sequence parallel {'yes' if parallel.sp else 'no'}, ZeRO {parallel.zero} over dp x cp, recompute {again}"
    if not stages:
        return
    yield f"  pipeline {pipe.schedule}, {pipe.virtual_stages} stage(s) a rank; cost: FLOPs over the mean of the stages"
    rows = [("  stage", "pp rank", "layers", "cost", "parameters of a tp rank")]
    costs = stage_costs(config.model, config.data.seq_len, stages)
    for number, layers in enumerate(stages):
        placed = family.plan.place(_shapes(family, layers), parallel.tp, 0)
        count = sum(math.prod(placement.local_shape) for placement in placed.values())
        span = f"{layers.start}-{layers.stop - 1} ({len(layers)})"
        rows.append((f"  {number}", str(number % parallel.pp), span, f"{costs[number]:.3f}", f"{count:,}"))
    yield from _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows in columns; the last one is as wide as it likes."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])


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
