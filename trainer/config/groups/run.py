"""Keys of `run`: where a run lives and what it is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunConfig:
    root: str = "runs"
    """Directory that holds all runs."""
    name: str | None = None
    """A run is known by this name; its directory is root/name. Unset: the recipe's name (and a sweep's overrides)."""
