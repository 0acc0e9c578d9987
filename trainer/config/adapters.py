"""Closed forms about adapters: their parameters, and what a token of training costs with them. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from trainer.config.arithmetic import flops_per_token, head_dim, matmul_parameters
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig

ALL_LINEAR = "all-linear"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
A, B, MAGNITUDE = "lora_A", "lora_B", "lora_magnitude_vector"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
KINDS = (A, B, MAGNITUDE, EMBEDDING_A, EMBEDDING_B)
"""Last parts of the canonical names of adapters' parameters."""


def scale_of(adapter: AdapterConfig) -> float:
    """s, of what an adapter adds: alpha / rank, with rslora alpha / sqrt(rank) (Kalajdzievski, arXiv:2312.03732)."""
    return adapter.alpha / (adapter.rank**0.5 if adapter.rslora else adapter.rank)


def is_targeted(path: str, target: str) -> bool:
    """Whether a target is this path, the end of it, or a glob of it."""
    return path == target or path.endswith(f".{target}") or fnmatchcase(path, target)


def linears(model: ModelConfig) -> Iterator[tuple[str, int, int]]:
    """(path, inputs, outputs) of every linear of the decoder, the head last."""
    query, key_value = model.heads * head_dim(model), model.kv_heads * head_dim(model)
    mlp = [("up_proj", model.hidden, model.mlp), ("down_proj", model.mlp, model.hidden)]
    if model.activation == "swiglu":
        mlp.insert(0, ("gate_proj", model.hidden, model.mlp))
    for layer in range(model.layers):
        at = f"model.layers.{layer}"
        yield f"{at}.self_attn.q_proj", model.hidden, query
        yield f"{at}.self_attn.k_proj", model.hidden, key_value
        yield f"{at}.self_attn.v_proj", model.hidden, key_value
        yield f"{at}.self_attn.o_proj", query, model.hidden
        yield from ((f"{at}.mlp.{name}", inputs, outputs) for name, inputs, outputs in mlp)
    yield HEAD, model.hidden, model.vocab


def adapter_parameters(model: ModelConfig, adapter: AdapterConfig) -> int:
    """Of A and B on the decoder's linears and its embedding: rank * (inputs + outputs) each; DoRA adds the outputs."""
    if adapter.kind == "none":
        return 0
    each = [
        (path, adapter.rank * (inputs + outputs) + adapter.dora * outputs) for path, inputs, outputs in linears(model)
    ]
    each.append((EMBEDDING, adapter.rank * (model.vocab + model.hidden) + adapter.dora * model.hidden))
    return sum(count for path, count in each if any(_meant(path, target) for target in adapter.targets))


def _meant(path: str, target: str) -> bool:
    return path not in (HEAD, EMBEDDING) if target == ALL_LINEAR else is_targeted(path, target)


def training_flops_per_token(model: ModelConfig, adapter: AdapterConfig, seq_len: int) -> float:
    """As trainer.config.arithmetic.flops_per_token. With adapters the base's matrices have no gradient of their own: 4
    FLOPs per parameter in the place of 6 (2 forward, 2 for the activations' gradient), and 6 per parameter of adapters.
    """
    whole = flops_per_token(model, seq_len)
    if adapter.kind == "none":
        return whole
    return whole - 2 * matmul_parameters(model) + 6 * adapter_parameters(model, adapter)
