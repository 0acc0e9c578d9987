"""Keys of `backend`: what executes the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendConfig:
    name: str = "auto"
    """auto (neuron where there is Trainium, native elsewhere) | native | neuron | fake."""
    timeout_seconds: float = 600.0
    """How long a collective may take before the process group gives up."""
