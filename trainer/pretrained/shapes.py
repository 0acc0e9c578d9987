"""Every parameter of the decoder with its shape, from the configuration alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.pretrained.format import FileTensor, renamed

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(model: ModelConfig) -> Shapes:
    """By canonical name, in the order of a directory of Llama's; a tied head is not among them."""
    shapes: Shapes = {"model.embed_tokens.weight": (model.vocab, model.hidden)}
    if model.position == "learned":
        shapes["model.embed_positions.weight"] = (model.max_positions, model.hidden)
    for layer in range(model.layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in layer_shapes(model).items()}
    shapes |= _norm(model, "model.norm")
    return shapes if model.tied else {**shapes, "lm_head.weight": (model.vocab, model.hidden)}


def layer_shapes(model: ModelConfig) -> Shapes:
    """Of one layer's parameters, by their names within it."""
    size = head_dim(model)
    query, key_value = model.heads * size, model.kv_heads * size
    shapes: Shapes = {}
    for name, rows, columns, biased in (
        ("self_attn.q_proj", query, model.hidden, model.qkv_bias),
        ("self_attn.k_proj", key_value, model.hidden, model.qkv_bias),
        ("self_attn.v_proj", key_value, model.hidden, model.qkv_bias),
        ("self_attn.o_proj", model.hidden, query, model.o_bias),
        *([("mlp.gate_proj", model.mlp, model.hidden, model.mlp_bias)] if model.activation == "swiglu" else []),
        ("mlp.up_proj", model.mlp, model.hidden, model.mlp_bias),
        ("mlp.down_proj", model.hidden, model.mlp, model.mlp_bias),
    ):
        shapes[f"{name}.weight"] = (rows, columns)
        if biased:
            shapes[f"{name}.bias"] = (rows,)
    if model.qk_norm != "none":
        each = model.qk_norm == "head"
        shapes["self_attn.q_norm.weight"] = (size if each else query,)
        shapes["self_attn.k_norm.weight"] = (size if each else key_value,)
    for name in _norms(model.block):
        shapes |= _norm(model, name)
    return shapes


def _norms(block: str) -> Iterator[str]:
    if block != "post":
        yield "input_layernorm"
    if block != "parallel_one_norm":
        yield "post_attention_layernorm"
    if block == "post":
        yield "post_feedforward_layernorm"


def _norm(model: ModelConfig, name: str) -> Shapes:
    weight: Shapes = {f"{name}.weight": (model.hidden,)}
    return {**weight, f"{name}.bias": (model.hidden,)} if model.norm == "layer" else weight


def canonical_tensors(model: ModelConfig) -> list[FileTensor]:
    """A directory whose names are ours, which are Llama's."""
    return [renamed(name, name, shape) for name, shape in parameter_shapes(model).items()]
