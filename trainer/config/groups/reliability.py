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
    setup_seconds: float = 1800.0
    """Longest that ranks wait for each other in set-up: to meet, build the model and load a checkpoint."""
    data_seconds: float = 86400.0
    """Longest that ranks wait for one that prepares its text: a node with a cold cache tokenises all of it."""
    save_seconds: float = 3600.0
    """Longest that ranks wait for each other in a save."""
    audit_steps: int = 1000
    """Compare the checksums of all copies every so many steps, and at each save; 0: at saves only."""
