"""Llama and what shares its architecture: Llama 1 to 3, DeepSeek LLM, DeepSeek-R1 distills of Llama, SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import Format
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import (
    ANY,
    lacking,
    read_dimensions,
    same_biases,
    unsaid,
    write_dimensions,
)
from trainer.pretrained.shapes import canonical_tensors


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """attention_bias covers the output projection too. pretraining_tp only changed the order of summation."""
    keys = Keys(values)
    biased = keys.flag("attention_bias", False)
    mlp_bias = keys.flag("mlp_bias", False)
    return {
        **read_dimensions(keys, positions=2048, eps=1e-6),
        "qkv_bias": biased,
        "o_bias": biased,
        "mlp_bias": mlp_bias,
    }


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    return {**write_dimensions(model), "attention_bias": model.qkv_bias, "mlp_bias": model.mlp_bias}


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its switches are the biases; and transformers 5 refuses a width that its heads do not divide."""
    yield from unsaid(model, qkv_bias=ANY, o_bias=ANY, mlp_bias=ANY)
    yield from same_biases(model, "qkv_bias", "o_bias")
    if model.head_dim is not None and model.hidden % model.heads:
        yield lacking(model, "heads", f"divides model.hidden ({model.hidden}) whatever model.head_dim is")


FORMAT = Format(
    model_types=("llama",),
    architectures=("LlamaForCausalLM",),
    read=read,
    write=write,
    tensors=canonical_tensors,
    lacks=lacks,
    ignored=("*.rotary_emb.inv_freq",),
)
