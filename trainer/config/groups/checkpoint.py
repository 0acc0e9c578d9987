"""Keys of `checkpoint`: saving."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int = 100
    """Save every so many steps, and always at the end; 0 saves at the end only."""
    every_minutes: float = 0.0
    """Save once so many minutes have passed since the last save, by rank 0's clock; 0: never. A killed run loses at
    most these minutes, a step and the save under way."""
    keep: int = 2
    """Newest checkpoints to keep; 0 keeps all."""
    keep_every: int = 0
    """Checkpoints of steps that this divides are kept for good; 0: none."""
    mode: str = "auto"
    """async: training goes on while a copy is written | sync: it waits | auto: async where memory allows the copy."""
    export_hf: str | None = None
    """Also as a Hugging Face directory, hf/step-... of the run's: last (once training is complete) | every (each save).
    Beside training; what fails is said, and costs no checkpoint."""
    assumed_bytes_per_second: float = 1e9
    """Of the file system that checkpoints go to, all ranks together: what the estimate of a save's length stands on."""
