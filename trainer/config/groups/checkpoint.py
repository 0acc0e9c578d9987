"""Keys of `checkpoint`: saving."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int = 100
    """Save every so many steps, and always at the end; 0 saves at the end only."""
    keep: int = 2
    """Newest checkpoints to keep; 0 keeps all."""
