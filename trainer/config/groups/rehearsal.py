"""Keys of `rehearsal`: what backend=fake pretends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RehearsalConfig:
    world: int | None = None
    """Processes to pretend. Unset: parallel.cores, or whole nodes of 32 that hold one copy of the model."""
    rank: int | None = None
    """The one rank to rehearse. Unset: one of each class of ranks (pipeline stage)."""
