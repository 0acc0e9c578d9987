"""Keys of `backend`: what executes the step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BackendConfig:
    name: str = "auto"
    """auto (neuron where there is Trainium, native elsewhere) | fake (a rehearsal) | an entry of
    trainer/backends/__init__.py | module:maker of a user's own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that a backend of a user's own reads."""
    timeout_seconds: float = 600.0
    """How long a collective may take before the process group gives up."""
