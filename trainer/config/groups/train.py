"""Keys of `train`: length and batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    tokens: int | None = None
    """Length of training in tokens. Set this or `steps`."""
    steps: int | None = None
    """Length of training in steps (optimizer updates). Set this or `tokens`."""
    tokens_per_step: int = 16384
    """Global batch in tokens, over all ranks and microbatches: a multiple of data.seq_len."""
    microbatch: int = 8
    """Samples that one rank takes through the model at once. Changes memory and speed, not the curve."""
    stop_after_steps: int | None = None
    """End this process early, saved, after so many steps in all; the schedule still spans the full length."""
