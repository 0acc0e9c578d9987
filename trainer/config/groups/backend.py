"""Keys of `backend`: what executes the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendConfig:
    name: str = "auto"
    """auto (neuron where there is Trainium, native elsewhere) | native | neuron | fake."""
    world: int | None = None
    """fake: processes to pretend. Unset: one copy of the model, on whole nodes of 32 where the batch allows."""
    rank: int | None = None
    """fake: the one rank to rehearse. Unset: one of each class of ranks (pipeline stage)."""
    timeout_seconds: float = 600.0
    """How long a collective may take before the process group gives up."""
