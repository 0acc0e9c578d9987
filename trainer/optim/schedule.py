"""Learning rate over time."""

from __future__ import annotations

import math

from trainer.config.groups.schedule import ScheduleConfig


def learning_rate(config: ScheduleConfig, peak: float, step: int, steps: int, warmup_steps: int) -> float:
    """Learning rate of optimizer step ``step`` (0-based) out of ``steps``.

    Warm-up is linear and its first step is above zero: peak * (step + 1) / warmup_steps. After it, ``progress``
    runs from 0 at the end of the warm-up to 1 at the end of training; multistep counts from the start of training.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak * _ratio(config, progress, min(1.0, step / steps))


def _ratio(config: ScheduleConfig, progress: float, trained: float) -> float:
    low = config.min_ratio
    if config.kind == "cosine":
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.kind == "linear":
        return 1 - (1 - low) * progress
    if config.kind == "wsd":
        decayed = (
            max(0.0, trained - (1 - config.decay_fraction)) / config.decay_fraction if config.decay_fraction else 0
        )
        return 1 - (1 - low) * decayed
    if config.kind == "multistep":
        return config.factor ** sum(trained >= milestone for milestone in config.milestones)
    return 1.0
