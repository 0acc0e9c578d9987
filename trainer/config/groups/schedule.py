"""Keys of `schedule`: the learning rate over time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScheduleConfig:
    kind: str = "cosine"
    """cosine | wsd | linear | constant | multistep."""
    warmup_steps: int | None = None
    """Steps of linear warm-up. Unset: warmup_fraction of all steps."""
    warmup_fraction: float = 0.02
    """Share of training spent warming up, when warmup_steps is unset."""
    min_ratio: float = 0.1
    """Final learning rate as a share of the peak (cosine, linear, wsd)."""
    decay_fraction: float = 0.2
    """wsd: share of training spent in the final decay."""
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9])
    """multistep: shares of training at which the learning rate is multiplied by `factor`."""
    factor: float = 0.316
    """multistep: the multiplier."""
