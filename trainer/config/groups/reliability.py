"""Keys of `reliability`: what happens when something goes wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReliabilityConfig:
    nonfinite: str = "stop"
    """A non-finite gradient norm never touches the weights; then: stop (exit 11) | skip (go on)."""
    nonfinite_limit: int = 10
    """skip: stop all the same after so many in a row."""
    grace_seconds: float = 300.0
    """How long scripts/launch.py waits for workers that were asked to stop to save and end, before it kills them."""
