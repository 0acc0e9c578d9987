"""Keys of `resume`: what a resume may change."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ResumeConfig:
    allow: list[str] = field(default_factory=list)
    """Trajectory keys that may differ from the saved run."""
