"""Llama and what shares its architecture: DeepSeek LLM, SmolLM2, Llama 1 to 3."""

from __future__ import annotations

from functools import partial

from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.models.family import Family
from trainer.models.sharding import sharding_plan


def family(config: ModelConfig) -> Family:
    """The plain decoder with its own plan."""
    return Family(partial(CausalLM, config), sharding_plan(config))
