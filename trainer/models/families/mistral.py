"""Mistral 7B (arXiv:2310.06825): Llama with a sliding window in every layer, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import Format
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import ANY, read_dimensions, unsaid, write_dimensions
from trainer.pretrained.shapes import canonical_tensors
from trainer.pretrained.windows import refuse_other_kinds

ABSENT_WINDOW = 4096
"""transformers' default, which holds where config.json has no such key; null means none."""


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """A window that is absent is not the same as one that is null."""
    keys = Keys(values)
    null = "sliding_window" in values and values["sliding_window"] is None
    window = None if null else keys.whole("sliding_window", ABSENT_WINDOW)
    dimensions = read_dimensions(keys, positions=131072, eps=1e-6, kv_heads=8)
    # transformers 5 reads a Mistral with layer_types as Ministral, whose layers differ by them.
    layers = dimensions["layers"]
    refuse_other_kinds(keys, layers, 0 if window else layers, "model_type and sliding_window")
    return {**dimensions, "sliding_window": window}


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    return {**write_dimensions(model), "sliding_window": model.sliding_window}


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its one switch is the window."""
    yield from unsaid(model, sliding_window=ANY)


FORMAT = Format(
    model_types=("mistral",),
    architectures=("MistralForCausalLM",),
    read=read,
    write=write,
    tensors=canonical_tensors,
    lacks=lacks,
    ignored=("*.rotary_emb.inv_freq",),
)
