"""The launcher that launcher.name names."""

from __future__ import annotations

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.plugins import call_named
from trainer.launchers import LAUNCHERS
from trainer.launchers.base import Launcher

KEY = "launcher.name"


def launcher_of(config: LauncherConfig) -> Launcher:
    """Made by its entry in the table, or by a module:maker of a user's own. Raises ConfigError where it is neither."""
    launcher: Launcher = call_named(KEY, LAUNCHERS.get(config.name, config.name), config)
    return launcher
