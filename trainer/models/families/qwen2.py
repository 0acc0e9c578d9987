"""Qwen2 and 2.5 (arXiv:2407.10671), DeepSeek-R1 distills of Qwen2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import Format
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import ANY, read_dimensions, unsaid, window_problems, write_dimensions
from trainer.pretrained.shapes import canonical_tensors
from trainer.pretrained.windows import read_windows, write_windows


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The biases are no key: every model has them."""
    keys = Keys(values)
    found = {**read_dimensions(keys, positions=32768, eps=1e-6, kv_heads=32), "qkv_bias": True}
    return {**found, **read_windows(keys, found["layers"])}


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    return {**write_dimensions(model), **write_windows(model)}


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its one switch is the window."""
    yield from unsaid(model, qkv_bias=(True,), sliding_window=ANY, full_attention_layers=ANY)
    yield from window_problems(model)


FORMAT = Format(
    model_types=("qwen2",),
    architectures=("Qwen2ForCausalLM",),
    read=read,
    write=write,
    tensors=canonical_tensors,
    lacks=lacks,
    ignored=("*.rotary_emb.inv_freq",),
)
