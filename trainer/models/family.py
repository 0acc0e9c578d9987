"""What a model family gives, and how model.family finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trainer.config.groups.model import ModelConfig
from trainer.config.plugins import call_named
from trainer.errors import ConfigError, Problem
from trainer.models.dropout import refuse_generators
from trainer.models.families import FAMILIES
from trainer.parallel.plan import Plan

KEY = "model.family"


@dataclass(frozen=True)
class Family:
    """A plain model and its sharding plan, for one configuration.

    build: makes the model; called under the meta device, so it allocates nothing. Its interface is that of
    trainer.models.decoder.CausalLM. plan: a rule for every parameter.
    """

    build: Callable[[], nn.Module]
    plan: Plan


def family_of(config: ModelConfig) -> Family:
    """The family that model.family names, with what model.frozen says. It is built once, on meta, to look at.

    Raises ConfigError where it cannot be imported, gives something else, or draws what layouts would draw differently.
    """
    made = call_named(KEY, FAMILIES.get(config.family, config.family), config)
    if not isinstance(made, Family):
        rule = f"a maker that returns a trainer.models.family.Family, not {type(made).__name__}"
        raise ConfigError(Problem(KEY, config.family, rule, "see docs/extending.md"))
    with torch.device("meta"):
        model: Any = made.build()
    refuse_generators(model, config.family)
    if not config.frozen:
        return made
    return replace(made, plan=made.plan.freezing(config.frozen, model.canonical_names().values()))
