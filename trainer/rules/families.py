"""The switches of `model` are those of its family: what is trained can be written as the family's directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trainer.config.groups.model import ModelConfig
from trainer.config.plugins import load_named
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.models.families import FAMILIES, format_named
from trainer.run.world import World


def families(config: Config, world: World) -> Iterator[Problem]:
    """Each switch that the family's format has no word for, with the family that has."""
    model = config.model
    if model.family not in FAMILIES or min(model.hidden, model.heads, model.kv_heads) <= 0:
        return
    fitting = None
    for problem in unsaid(model):
        fitting = fitting or [name for name in FAMILIES if not unsaid(replace(model, family=name))]
        yield replace(problem, remedy=f"model.family={fitting[0]}") if fitting else problem


def unsaid(model: ModelConfig) -> list[Problem]:
    """By the format of the model's family, which is imported without torch."""
    return list(load_named("model.family", format_named(model.family)).lacks(model))
