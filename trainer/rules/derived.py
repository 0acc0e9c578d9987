"""Values that follow from the configuration and the world: computed once, printed with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.config.arithmetic import head_dim, parameters
from trainer.config.schema import Config
from trainer.parallel.bubble import idle_share
from trainer.parallel.heads import Heads, lay_out
from trainer.parallel.stages import stage_costs
from trainer.rules.grace import stop_line
from trainer.rules.quantities import (
    attention_kind,
    backend_name,
    model_parallel_size,
    pipeline_stages,
    precision_mode,
    total_steps,
    why_no_kernel,
)
from trainer.run.world import World


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
        no_kernel = why_no_kernel(config, precision, world.host.packages if world.host is not None else {})
        why = no_kernel or "causal, without document masks (data.document_mask), of whole 2,048 positions"
        reasons = (*reasons, f"attention      {attention_kind(config, no_kernel is None):<12} {why}")
        reasons = (*reasons, f"stop           {stop_line(config, world)}")
    stages = pipeline_stages(config)
    reasons = (*reasons, *_layout_reasons(config, dp, accumulation, stages))
    return Derived(backend, precision, dp, samples, accumulation, steps, warmup, stages, reasons)


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
