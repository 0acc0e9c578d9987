"""What is wrong with a directory that model.init_from names, as one problem."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import ConfigError, Problem

KEY = "model.init_from"
AGAIN = "download or copy the directory again"


def refused(path: Path | str, rule: str, remedy: str) -> ConfigError:
    """path: as the user wrote it. rule: what it does not keep, and what it has instead."""
    return ConfigError(Problem(KEY, str(path), " ".join(rule.split()), remedy))
