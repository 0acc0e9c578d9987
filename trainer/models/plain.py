"""The decoder with its own plan: the family of everything that its switches can say."""

from __future__ import annotations

from functools import partial

from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.models.family import Family
from trainer.models.sharding import sharding_plan


def plain_family(config: ModelConfig) -> Family:
    """No part of its own."""
    return Family(partial(CausalLM, config), sharding_plan(config))
