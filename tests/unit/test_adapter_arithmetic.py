"""Closed forms about adapters against the model that is built, and against figures of others."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from trainer.config.adapters import adapter_parameters, training_flops_per_token
from trainer.config.arithmetic import flops_per_token
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.models.family import family_of, shapes_of

LLAMA_7B = ModelConfig(hidden=4096, layers=32, heads=32, kv_heads=32, mlp=11008, vocab=32000)
SMALL = ModelConfig(hidden=64, layers=3, heads=4, kv_heads=2, mlp=96, vocab=128)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    "targets", [["all-linear"], ["q_proj", "lm_head"], ["embed_tokens", "model.layers.[12].mlp.*"]]
)
@pytest.mark.parametrize("model", [SMALL, replace(SMALL, activation="gelu", tied=True, head_dim=24)])
def test_parameters_are_those_of_the_model(model: ModelConfig, targets: list[str], dora: bool) -> None:
    adapter = AdapterConfig("lora", rank=5, targets=targets, dora=dora)
    built = {name: shape for name, shape in shapes_of(family_of(model, adapter)).items() if ".lora_" in name}
    assert adapter_parameters(model, adapter) == sum(map(prod, built.values())) > 0


def test_the_figure_that_is_known_for_llama_7b() -> None:
    """PEFT prints 4,194,304 trainable parameters for r = 8 on q_proj and v_proj (its LLaMA-LoRA examples)."""
    assert adapter_parameters(LLAMA_7B, AdapterConfig("lora", rank=8, targets=["q_proj", "v_proj"])) == 4_194_304


def test_a_frozen_base_costs_two_thirds_and_adapters_whole() -> None:
    adapter = AdapterConfig("lora", rank=8)
    model = replace(SMALL, layers=1)
    matrices = 2 * 64 * (4 + 2) * 16 + 3 * 64 * 96 + 128 * 64
    beside = 8 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 96))
    expected = flops_per_token(model, 32) - 2 * matrices + 6 * beside
    assert training_flops_per_token(model, adapter, 32) == expected
    assert training_flops_per_token(model, AdapterConfig(), 32) == flops_per_token(model, 32)
