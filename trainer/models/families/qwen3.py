"""Qwen3 (arXiv:2505.09388), dense: Qwen2 with RMSNorm over each head of queries and keys in place of the biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import Format
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import (
    ANY,
    read_dimensions,
    same_biases,
    unsaid,
    window_problems,
    write_dimensions,
)
from trainer.pretrained.shapes import canonical_tensors
from trainer.pretrained.windows import read_windows, write_windows


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """A head's size that is absent is 128, whatever the width."""
    keys = Keys({**values, "head_dim": values.get("head_dim") or 128})
    biased = keys.flag("attention_bias", False)
    found = {**read_dimensions(keys, positions=32768, eps=1e-6, kv_heads=32), "qkv_bias": biased, "o_bias": biased}
    return {**found, **read_windows(keys, found["layers"]), "qk_norm": "head"}


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    return {**write_dimensions(model), **write_windows(model), "attention_bias": model.qkv_bias}


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its switches are the window and the biases."""
    allowed = {"qkv_bias": ANY, "o_bias": ANY, "sliding_window": ANY, "full_attention_layers": ANY}
    yield from unsaid(model, qk_norm=("head",), **allowed)
    yield from same_biases(model, "qkv_bias", "o_bias")
    yield from window_problems(model)


FORMAT = Format(
    model_types=("qwen3",),
    architectures=("Qwen3ForCausalLM",),
    read=read,
    write=write,
    tensors=canonical_tensors,
    lacks=lacks,
)
