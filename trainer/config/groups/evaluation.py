"""Keys of `evaluation`: held-out loss and samples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationConfig:
    every_steps: int = 100
    """Evaluate on held-out text every so many steps, and always at the end; 0 never."""
    windows: int = 128
    """Held-out samples to score, spread evenly over the held-out text."""
    sample_prompt: str = "def "
    """Text that the printed sample continues; empty for no sample."""
    sample_tokens: int = 48
    """Length of the printed sample, in tokens."""
    sample_temperature: float = 0.7
    """0 takes the likeliest token."""
