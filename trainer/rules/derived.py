"""Values that follow from the configuration and the world: computed once, printed with their reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from trainer.config.arithmetic import head_dim, parameters
from trainer.config.schema import Config
from trainer.parallel.bubble import idle_share
from trainer.parallel.heads import Heads, lay_out
from trainer.parallel.stages import cut_layers, stage_costs
from trainer.run.world import World
from trainer.trainium.flash import why_plain
from trainer.trainium.topology import CORES_OF_A_NODE


@dataclass(frozen=True)
class Derived:
    """What the run will do, worked out from a *valid* configuration."""

    backend: str
    precision: str
    dp: int
    samples_per_step: int
    accumulation: int
    steps: int
    warmup_steps: int
    stages: tuple[range, ...]
    """Layers of each pipeline stage, first to last; empty without pipeline."""
    reasons: tuple[str, ...]
    """One line per value, for people: name, value, why."""


def backend_name(config: Config, world: World) -> str:
    """The backend that `auto` stands for here."""
    if config.backend.name != "auto":
        return config.backend.name
    return "neuron" if world.trainium else "native"


def precision_mode(config: Config, world: World) -> str:
    """The precision mode after the fallback for CPUs without BF16 instructions."""
    fallback = config.precision.cpu_fallback
    on_cpu = backend_name(config, world) == "native"
    if on_cpu and config.precision.mode != "fp32" and fallback is not None and not world.cpu_bf16:
        return fallback
    return config.precision.mode


def model_parallel_size(config: Config) -> int:
    """Ranks that together hold one copy of the model."""
    return config.parallel.tp * config.parallel.pp * config.parallel.cp


def pretended(config: Config, world: World) -> World:
    """The world that backend=fake pretends, seen from this process, which reports as rank 0; any other as it is.

    backend.world; unset: whole nodes that one copy of the model fits, or its own ranks alone where the step's samples
    do not divide among the copies on those.
    """
    if backend_name(config, world) != "fake":
        return world
    size = config.backend.world
    if size is None or size <= 0:
        copy = max(1, model_parallel_size(config))
        nodes = math.lcm(copy, CORES_OF_A_NODE) if copy > 1 else 1
        samples = config.train.tokens_per_step // max(1, config.data.seq_len)
        fits = samples % (max(1, config.train.microbatch) * (nodes // copy)) == 0
        size = nodes if fits else copy
    return replace(world, size=size, rank=0, launched=world.size)


def total_steps(config: Config) -> int:
    """Length of training in steps: train.steps, or train.tokens over the tokens of a step, rounded up."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.tokens is not None, "validated: one of train.steps, train.tokens"
    return math.ceil(config.train.tokens / config.train.tokens_per_step)


def derive(config: Config, world: World) -> Derived:
    """Work out everything that the primary knobs imply. Call after validation."""
    backend, precision = backend_name(config, world), precision_mode(config, world)
    dp = world.size // model_parallel_size(config)
    samples = config.train.tokens_per_step // config.data.seq_len
    accumulation = samples // (config.train.microbatch * dp)
    steps = total_steps(config)
    warmup = config.schedule.warmup_steps
    warmup_reason = "schedule.warmup_steps"
    if warmup is None:
        warmup = max(1, round(config.schedule.warmup_fraction * steps))
        warmup_reason = f"{config.schedule.warmup_fraction:g} of {steps:,} steps (schedule.warmup_fraction)"
    fallback = "precision.mode" if precision == config.precision.mode else "this CPU has no BF16 instructions"
    length = "train.steps" if config.train.steps is not None else f"{config.train.tokens:,} tokens in whole steps"
    reasons: tuple[str, ...] = (
        f"backend        {backend:<12} {'found Trainium' if world.trainium else 'no Trainium on this machine'}"
        if config.backend.name == "auto"
        else f"backend        {backend:<12} backend.name",
        f"precision      {precision:<12} {fallback}",
        f"data parallel  {dp:<12,} {world.size} processes / (tp {config.parallel.tp} x pp {config.parallel.pp}"
        f" x cp {config.parallel.cp})",
        f"samples/step   {samples:<12,} {config.train.tokens_per_step:,} tokens / {config.data.seq_len:,} per sample",
        f"accumulation   {accumulation:<12,} {samples:,} samples / (microbatch {config.train.microbatch} x dp {dp})",
        f"steps          {steps:<12,} {length}",
        f"warm-up steps  {warmup:<12,} {warmup_reason}",
        f"parameters     {parameters(config.model):<12,} closed form of model={config.model.name}",
    )
    if config.parallel.tp > 1:
        layout = lay_out(Heads(config.model.heads, config.model.kv_heads, head_dim(config.model)), config.parallel.tp)
        reasons = (*reasons, f"heads          {f'tp {config.parallel.tp}':<12} {layout}")
    if backend == "neuron":
        plain = why_plain_attention(config, precision)
        why = plain or "causal, without document masks (data.document_mask), of whole 2,048 positions"
        reasons = (*reasons, f"attention      {'plain' if plain else 'NKI flash':<12} {why}")
    stages = pipeline_stages(config)
    reasons = (*reasons, *_layout_reasons(config, dp, accumulation, stages))
    return Derived(backend, precision, dp, samples, accumulation, steps, warmup, stages, reasons)


def why_plain_attention(config: Config, precision: str) -> str | None:
    """Why attention on Trainium is not the NKI flash kernel; None where it is. precision: as it will run."""
    data = config.data
    return why_plain(data.seq_len, data.document_mask, config.parallel.cp, precision, head_dim(config.model))


def pipeline_stages(config: Config) -> tuple[range, ...]:
    """Layers of each pipeline stage, first to last; empty without pipeline."""
    pp, pipeline = config.parallel.pp, config.parallel.pipeline
    if pp == 1:
        return ()
    return cut_layers(config.model, config.data.seq_len, pp * pipeline.virtual_stages, pipeline.cuts)


def _layout_reasons(config: Config, dp: int, accumulation: int, stages: tuple[range, ...]) -> list[str]:
    """Lines about pipeline, ZeRO and recomputation, where they are in use."""
    parallel, lines = config.parallel, []
    if stages:
        counts, pipe = ",".join(str(len(stage)) for stage in stages), parallel.pipeline
        why = "parallel.pipeline.cuts" if pipe.cuts else "balanced by cost, the head's included"
        dearest = max(stage_costs(config.model, config.data.seq_len, stages))
        lines.append(f"stage layers   {counts:<12} {why}; the dearest costs {dearest:.3f} x the mean")
        share = f"{idle_share(pipe.schedule, parallel.pp, pipe.virtual_stages, accumulation):.1%}"
        lines.append(f"idle           {share:<12} of a step, by the published formula of {pipe.schedule}")
    if parallel.zero:
        ranks = dp * parallel.cp
        idle = "" if ranks > 1 else ": nothing to cut"
        lines.append(f"zero           {parallel.zero:<12} over {ranks:,} ranks (dp x cp){idle}")
    if parallel.recompute != "none":
        lines.append(
            f"recompute      {parallel.recompute:<12} in every {parallel.recompute_every}. layer (recompute_every)"
        )
    return lines


def effective(config: Config, derived: Derived) -> Config:
    """The configuration as it will run: the precision after fallback, the run's name filled in."""
    name = config.run.name or config.recipe or "run"
    return replace(
        config,
        precision=replace(config.precision, mode=derived.precision),
        run=replace(config.run, name=name),
    )
