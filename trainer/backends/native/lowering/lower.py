"""From the plain model to what a rank holds of it: stages, then tensor and context parallel, recomputation, ZeRO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from trainer.backends.base import BuildModel
from trainer.backends.common.share import Share
from trainer.backends.native.lowering import context_parallel, recompute, tensor_parallel
from trainer.backends.native.lowering.fully_sharded import FullySharded, rows_of
from trainer.backends.native.lowering.tensor_parallel import Seam, submodule
from trainer.config.groups.parallel import ParallelConfig
from trainer.parallel.mesh import DATA, Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


@dataclass(frozen=True)
class Stage:
    """One pipeline stage of this rank, on the meta device; the whole model where there is no pipeline.

    names: canonical name of each parameter by its name in the model. placements: of what the optimizer gets of it, by
    canonical name. tied: the model's head is its embedding, wherever they are.
    """

    number: int
    model: Any
    tied: bool
    names: Mapping[str, str]
    placements: Mapping[str, Placement]
    sharded: FullySharded | None


def lower(
    build: BuildModel,
    plan: Plan,
    mesh: Mesh,
    groups: Mapping[str, dist.ProcessGroup],
    data: DeviceMesh | None,
    parallel: ParallelConfig,
    stages: Sequence[range],
    precision: str,
    attention: frozenset[Any],
) -> list[Stage]:
    """This rank's stages, first to last.

    data: the ranks over which ZeRO cuts; None without. stages: the layers of every stage; empty without pipeline.
    attention: the device's kernels of it.
    Raises ConfigError when the plan does not fit the model or the layout.
    """
    if not stages:
        return [_lower_stage(build, plan, mesh, groups, data, parallel, 0, None, precision, attention)]
    mine = range(mesh.coordinate("pp"), len(stages), mesh.pp)
    return [_lower_stage(build, plan, mesh, groups, data, parallel, n, stages[n], precision, attention) for n in mine]


def _lower_stage(
    build: BuildModel,
    plan: Plan,
    mesh: Mesh,
    groups: Mapping[str, dist.ProcessGroup],
    data: DeviceMesh | None,
    parallel: ParallelConfig,
    number: int,
    layers: range | None,
    precision: str,
    attention: frozenset[Any],
) -> Stage:
    with torch.device("meta"):
        model: Any = build()
    tied = submodule(model, plan.head).weight is submodule(model, plan.embedding).weight
    if layers is not None:
        model.keep_stage(layers)
    names: dict[str, str] = model.canonical_names()
    shapes = {names[name]: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    placements = plan.place(shapes, mesh.tp, mesh.coordinate("tp"))
    if mesh.tp > 1:
        local = {name: placements[canonical] for name, canonical in names.items()}
        again = partial(recompute.covers, plan, parallel.recompute, parallel.recompute_every)
        tensor_parallel.lower(model, plan, local, Seam(groups["tp"], parallel.sp), again)
    if mesh.cp > 1:
        context_parallel.lower(model, plan, Share.of_rank(mesh, parallel.sp), groups["cp"])
    _freeze(model, plan, names, torch.bfloat16 if precision == "bf16_mixed" else None)
    recompute.lower(model, plan, parallel.recompute, parallel.recompute_every, attention)
    for name, canonical in names.items():
        if name != canonical:  # a tied head far from its embedding: a copy, which neither counts nor is written
            placements[canonical] = _as_copy(placements[canonical])
    if data is None:
        return Stage(number, model, tied, names, placements, None)
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    sharded = FullySharded(model, plan, parallel.zero, data, precision)
    rank, ranks = mesh.position(*DATA), mesh.size(*DATA)
    cut = {name: rows_of(placement, rank, ranks) for name, placement in placements.items()}
    return Stage(number, model, tied, names, cut, sharded)


def _freeze(model: nn.Module, plan: Plan, names: Mapping[str, str], dtype: torch.dtype | None) -> None:
    """What is not trained wants no gradient, and has no FP32 copy: it is in the dtype of the computation."""
    rules = plan.match(names.values())
    for name, parameter in model.named_parameters():
        if not rules[names[name]].trainable:
            parameter.requires_grad_(False)
            if dtype is not None:
                parameter.data = parameter.data.to(dtype)


def _as_copy(placement: Placement) -> Placement:
    return replace(placement, boxes=tuple(replace(box, copy=box.copy + 1) for box in placement.boxes))
