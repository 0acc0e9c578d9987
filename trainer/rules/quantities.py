"""Quantities that rules and the summary share: each follows from the configuration and the world."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from trainer.config.arithmetic import head_dim
from trainer.config.schema import Config
from trainer.parallel.stages import cut_layers
from trainer.run.world import World
from trainer.trainium.blocks import is_blockwise
from trainer.trainium.flash import why_not_flash
from trainer.trainium.topology import CORES_OF_A_NODE


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

    rehearsal.world, else parallel.cores. Both unset: whole nodes that one copy of the model fits, or its own ranks
    alone where the step's samples do not divide among the copies on those.
    """
    if backend_name(config, world) != "fake":
        return world
    size = config.rehearsal.world if config.rehearsal.world is not None else config.parallel.cores
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


def why_no_kernel(config: Config, precision: str, packages: Mapping[str, str]) -> str | None:
    """Why attention on Trainium is not the NKI flash kernel; None where it is.

    precision: as it will run. packages: versions of the Neuron packages there; empty for the pinned ones.
    """
    data, window = config.data, config.model.sliding_window
    if window is not None and window < data.seq_len:
        return f"model.sliding_window ({window:,}) below data.seq_len: the NKI flash kernel has no window"
    return why_not_flash(
        data.seq_len, data.document_mask, config.parallel.cp, precision, head_dim(config.model), packages
    )


def attention_kind(config: Config, kernel: bool) -> str:
    """How attention is computed on Trainium. kernel: it may be the NKI flash kernel."""
    if kernel:
        return "NKI flash"
    return "blockwise" if is_blockwise(config.data.seq_len) else "plain"


def pipeline_stages(config: Config) -> tuple[range, ...]:
    """Layers of each pipeline stage, first to last; empty without pipeline."""
    pp, pipeline = config.parallel.pp, config.parallel.pipeline
    if pp == 1:
        return ()
    return cut_layers(config.model, config.data.seq_len, pp * pipeline.virtual_stages, pipeline.cuts)
