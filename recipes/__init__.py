"""Recipes: one module per kind of training. They assemble the parts and hand over to trainer.training.loop."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from trainer.config.schema import Config
from trainer.rules.derived import Derived
from trainer.run.world import World

Recipe = Callable[[Config, Derived, World, list[str]], int]
"""Runs one configuration and returns its exit code."""


def load(task: str) -> Recipe:
    """The recipe of a task, imported only now: it brings torch, and validation comes before."""
    recipe: Recipe = importlib.import_module(f"recipes.{task}").run
    return recipe
