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
    """Longest that ranks wait for each other in training: from one microbatch to the next, and in a collective. Who
    does not come is named, with exit code 12. Set-up, data and saves have limits of their own (reliability)."""
