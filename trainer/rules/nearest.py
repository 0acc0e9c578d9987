"""The nearest legal layout to one that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import log2

from trainer.config.groups.parallel import ParallelConfig
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.layout import RULES
from trainer.rules.quantities import backend_name, model_parallel_size
from trainer.run.world import World
from trainer.trainium.topology import TENSOR_PARALLEL

LARGEST_SEARCH = 16384
"""Ranks up to which the nearest legal layout is looked for: an answer comes in a second or not at all."""


def layouts(config: Config, world: World) -> Iterator[Problem]:
    """Every rule below; one more problem names the nearest legal layout, where there is one."""
    p = config.parallel
    if (
        min(p.tp, p.pp, p.cp, p.recompute_every, p.pipeline.virtual_stages, config.data.seq_len, config.model.layers)
        <= 0
    ):
        return  # the ranges' affair
    problems = [problem for rule in RULES for problem in rule(config, world)]
    if problems and (found := nearest(config, world)) is not None:
        last = problems[-1]
        if found not in last.remedy:
            problems[-1] = replace(last, remedy=f"{last.remedy}; the nearest legal layout: {found}")
    yield from problems


def nearest(config: Config, world: World) -> str | None:
    """The legal layout with the fewest and smallest changes, as overrides; None where no change of layout helps."""
    p = config.parallel
    best: tuple[float, str] | None = None
    ranks = max(world.size, model_parallel_size(config))  # a plan is looked at on one process
    if ranks > LARGEST_SEARCH:
        return None
    sizes = [n for n in range(1, ranks + 1) if ranks % n == 0]
    samples, micro = config.train.tokens_per_step // config.data.seq_len, max(1, config.train.microbatch)
    own, on_trn1 = (p.pipeline.schedule, p.pipeline.virtual_stages), backend_name(config, world) == "neuron"
    schedules = list(dict.fromkeys([own, ("interleaved_1f1b", 2), ("1f1b", 1)]))  # the first of equals is proposed
    choices = product(
        sizes, sizes, sizes, dict.fromkeys([p.sp, False]), range(p.zero + 1 if 0 <= p.zero <= 3 else 2), schedules
    )
    for tp, pp, cp, sp, stage, (schedule, virtual) in choices:
        if ranks % (tp * pp * cp) or config.model.mlp % tp or config.model.vocab % tp or pp > config.model.layers:
            continue
        if on_trn1 and not _on_trn1(tp, cp, stage, schedule):
            continue
        if samples % (micro * ranks // (tp * pp * cp)):
            continue
        pipe = replace(p.pipeline, schedule=schedule, virtual_stages=virtual, cuts=[])
        candidate = replace(p, tp=tp, pp=pp, cp=cp, sp=sp, zero=stage, pipeline=pipe)
        distance = _distance(p, candidate)
        if best is not None and distance >= best[0]:
            continue
        changed = replace(config, parallel=candidate)
        if not any(problem for rule in RULES for problem in rule(changed, replace(world, size=ranks))):
            best = (distance, _changes(p, candidate))
    return best[1] if best is not None and best[1] else None


def _on_trn1(tp: int, cp: int, stage: int, schedule: str) -> bool:
    """What trainer.rules.neuron and trainer.trainium.topology say of a layout, in short."""
    return tp in TENSOR_PARALLEL and stage <= 1 and (cp == 1 or stage == 1) and schedule != "interleaved_zero_bubble"


def _distance(a: ParallelConfig, b: ParallelConfig) -> float:
    axes = sum(abs(log2(getattr(a, axis) / getattr(b, axis))) for axis in ("tp", "pp", "cp"))
    pipe = 0.5 * (a.pipeline.schedule != b.pipeline.schedule) + 0.5 * (
        a.pipeline.virtual_stages != b.pipeline.virtual_stages
    )
    return 4 * axes + (a.sp != b.sp) + abs(a.zero - b.zero) + pipe


def _changes(a: ParallelConfig, b: ParallelConfig) -> str:
    changed = [
        f"parallel.{key}={getattr(b, key)}"
        for key in ("tp", "pp", "cp", "sp", "zero")
        if getattr(a, key) != getattr(b, key)
    ]
    for key in ("schedule", "virtual_stages"):
        if getattr(a.pipeline, key) != (value := getattr(b.pipeline, key)):
            changed.append(f"parallel.pipeline.{key}={value}")
    if a.pipeline.cuts != b.pipeline.cuts:
        changed.append("parallel.pipeline.cuts=[]")
    return " ".join(changed).replace("=False", "=false").replace("=True", "=true")
