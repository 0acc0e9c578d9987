"""OLMo 2 (arXiv:2501.00656): norms behind attention and feed-forward, RMSNorm over all queries and all keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import Format
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import ANY, read_dimensions, same_biases, unsaid, write_dimensions
from trainer.pretrained.shapes import canonical_tensors


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of Llama, but for what the architecture itself says."""
    keys = Keys(values)
    biased = keys.flag("attention_bias", False)
    own = {"block": "post", "qk_norm": "all", "qkv_bias": biased, "o_bias": biased}
    return {**read_dimensions(keys, positions=2048, eps=1e-5), **own}


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    written = {**write_dimensions(model), "attention_bias": model.qkv_bias}
    scaling = written["rope_scaling"]
    if scaling and scaling["rope_type"] in ("linear", "dynamic"):
        # 4.48 refuses other keys than these two in this family.
        written["rope_scaling"] = {"type": scaling["rope_type"], "factor": scaling["factor"]}
    return written


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its one switch is the biases."""
    yield from unsaid(model, block=("post",), qk_norm=("all",), qkv_bias=ANY, o_bias=ANY)
    yield from same_biases(model, "qkv_bias", "o_bias")


FORMAT = Format(
    model_types=("olmo2",),
    architectures=("Olmo2ForCausalLM",),
    read=read,
    write=write,
    tensors=canonical_tensors,
    lacks=lacks,
)
