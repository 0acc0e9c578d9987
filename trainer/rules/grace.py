"""Whether a stop has time: what a step and a save take on trn1, estimated, against reliability.grace_seconds. No torch.

Step: 6 FLOP a parameter and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), with adapters 4 a frozen one
(no gradient of its own), over what the cores do at MFU of their 95e12 BF16 FLOP/s (half a trn1 chip's 190, AWS Neuron
documentation, trn1-arch). Save: the bytes of a checkpoint over checkpoint.assumed_bytes_per_second. Neither was
measured; a run says when it has measured more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainer.config.adapters import adapter_parameters
from trainer.config.arithmetic import parameters
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.quantities import backend_name, model_parallel_size
from trainer.run.world import World

CORE_FLOPS = 95e12
MFU = 0.39
"""Share of the peak that is reckoned with."""
SAVED_BYTES = {"bf16_mixed": 12, "fp32": 12, "bf16": 6}
"""Of a checkpoint, a parameter: the weight (the master in bf16_mixed) and two moments."""
AHEAD = 9
"""Microbatches that a step without pipeline goes on for, once one rank was asked to stop (backends/neuron)."""
ROUND = 60


def step_seconds(config: Config, cores: int) -> float:
    """Estimated seconds of a step on so many NeuronCores of trn1."""
    base, beside = parameters(config.model), adapter_parameters(config.model, config.adapter)
    flops = (4 if beside else 6) * base + 6 * beside
    return flops * config.train.tokens_per_step / (cores * CORE_FLOPS * MFU)


def saved_parameters(config: Config) -> int:
    """What a checkpoint holds: with adapters theirs alone."""
    return adapter_parameters(config.model, config.adapter) or parameters(config.model)


def save_seconds(config: Config) -> float:
    """Estimated seconds of a save."""
    saved = saved_parameters(config) * SAVED_BYTES.get(config.precision.mode, 12)
    return saved / config.checkpoint.assumed_bytes_per_second


def stop_share(config: Config, world: World) -> float:
    """The part of a step that is still trained after a stop was asked for: all of it, where a pipeline runs."""
    if config.parallel.pp > 1:
        return 1.0
    dp = max(1, world.size // model_parallel_size(config))
    accumulation = config.train.tokens_per_step // config.data.seq_len // (config.train.microbatch * dp)
    return min(1.0, AHEAD / max(1, accumulation))


def too_short(grace_seconds: float, step: float, share: float, save: float) -> str | None:
    """A line for people where a stop takes longer than the grace, by seconds that a run has measured; None where not.

    share: of a step that is still trained.
    """
    needed = share * step + save
    if needed <= grace_seconds:
        return None
    part = "a step" if share == 1 else f"{share:.0%} of a step"
    return (
        f"reliability.grace_seconds={grace_seconds:g} is shorter than a stop: {needed:,.0f} s, measured"
        f" ({part} of {step:,.1f} s, a save of {save:,.1f} s); reliability.grace_seconds={_round(1.25 * needed)}"
    )


def stop_line(config: Config, world: World) -> str:
    """For people: what a stop takes, with its terms."""
    step, save, share = step_seconds(config, world.size), save_seconds(config), stop_share(config, world)
    part = "a step" if share == 1 else f"{share:.0%} of a step"
    beside = adapter_parameters(config.model, config.adapter)
    cost = f"({4 if beside else 6} x {parameters(config.model):,}{f' + 6 x {beside:,}' if beside else ''})"
    cost = cost if beside else cost[1:-1]
    return (
        f"{share * step + save:,.0f} s (estimated): {part} of {step:,.1f} s"
        f" ({cost} parameters x {config.train.tokens_per_step:,} tokens"
        f" / ({world.size} cores x 95e12 x {MFU})) + a save of {save:,.1f} s"
        f" ({SAVED_BYTES.get(config.precision.mode, 12)} bytes a parameter{' of adapters' if beside else ''}"
        f" / {config.checkpoint.assumed_bytes_per_second:,.0f} bytes/s)"
    )


def grace(config: Config, world: World) -> Iterator[Problem]:
    """On trn1, a stop and a save fit into the grace."""
    numbers = (config.checkpoint.assumed_bytes_per_second, config.data.seq_len, config.train.microbatch)
    if backend_name(config, world) != "neuron" or min(*numbers, model_parallel_size(config)) <= 0:
        return
    step = step_seconds(config, world.size)
    needed = stop_share(config, world) * step + save_seconds(config)
    if config.reliability.grace_seconds < needed:
        yield Problem(
            "reliability.grace_seconds",
            config.reliability.grace_seconds,
            f"at least what a stop takes: {stop_line(config, world)}",
            f"reliability.grace_seconds={_round(1.25 * needed)} and as much from the scheduler; or the file system's"
            " own speed in checkpoint.assumed_bytes_per_second",
        )


def _round(seconds: float) -> int:
    return math.ceil(seconds / ROUND) * ROUND
