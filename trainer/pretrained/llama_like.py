"""What Llama and the families that descend from it have in common in config.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.keys import DAMAGED, Keys, refusal
from trainer.pretrained.rope import read_rope, write_rope

SWITCHES: dict[str, Any] = {
    "norm": "rms",
    "block": "pre",
    "activation": "swiglu",
    "position": "rotary",
    "qkv_bias": False,
    "o_bias": False,
    "mlp_bias": False,
    "qk_norm": "none",
    "sliding_window": None,
    "full_attention_layers": 0,
}
"""Fields of ModelConfig of the plainest member; the others say what they have instead."""
SILU = {"silu": "swiglu", "swish": "swiglu"}


def read_dimensions(keys: Keys, positions: int, eps: float, kv_heads: int | None = None) -> dict[str, Any]:
    """Dimensions, rope and switches of the plainest member. positions, eps, kv_heads: where the key is absent."""
    keys.choice("hidden_act", SILU, "silu", "the decoder's gated feed-forward computes SiLU only")
    heads = keys.whole("num_attention_heads")
    return {
        **SWITCHES,
        "hidden": keys.whole("hidden_size"),
        "layers": keys.whole("num_hidden_layers"),
        "heads": heads,
        "kv_heads": read_kv_heads(keys, "num_key_value_heads", heads, kv_heads or heads),
        "mlp": keys.whole("intermediate_size"),
        "vocab": keys.whole("vocab_size"),
        "norm_eps": keys.number("rms_norm_eps", eps),
        **read_rope(keys, positions),
        **read_head_dim(keys, keys.whole("hidden_size"), heads, keys.whole("head_dim", None)),
    }


def read_kv_heads(keys: Keys, key: str, heads: int, default: int) -> int:
    """Key-value heads, each for as many query heads."""
    found: int = keys.whole(key, default)
    if heads % found:
        raise refusal(key, found, f"divides num_attention_heads ({heads})", DAMAGED)
    return found


def read_head_dim(keys: Keys, hidden: int, heads: int, stated: int | None) -> dict[str, Any]:
    """head_dim: None where it follows from the width."""
    if stated is None and hidden % heads:
        raise refusal("num_attention_heads", heads, f"divides hidden_size ({hidden}), or head_dim is there", DAMAGED)
    return {"head_dim": None if stated is None or stated * heads == hidden else stated}


def write_dimensions(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read_dimensions``."""
    return {
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": head_dim(model),
        "intermediate_size": model.mlp,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "attention_dropout": 0.0,
        **write_rope(model),
    }


def unsaid(model: ModelConfig, **allowed: tuple[object, ...]) -> Iterator[Problem]:
    """A problem for each switch that has another value than these. Those that are not named: SWITCHES."""
    for name, plain in SWITCHES.items():
        values, value = allowed.get(name, (plain,)), getattr(model, name)
        if values and value not in values:
            yield lacking(model, name, " or ".join(map(_said, values)))


def lacking(model: ModelConfig, name: str, rule: str) -> Problem:
    """A field of ModelConfig that the family's directories have no word for."""
    remedy = f"set model.{name} so, or use a family of your own (docs/extending.md)"
    return Problem(f"model.{name}", getattr(model, name), f"{rule} in family {model.family}", remedy)


def _said(value: object) -> str:
    return "null" if value is None else str(value).lower()


ANY: tuple[object, ...] = ()
"""For ``unsaid``: whatever value."""


def same_biases(model: ModelConfig, *names: str) -> Iterator[Problem]:
    """One key of config.json covers them."""
    first, *others = names
    for name in others:
        if getattr(model, name) != getattr(model, first):
            yield lacking(model, name, f"equal to model.{first}")


def other_head_dim(model: ModelConfig) -> Iterator[Problem]:
    """A head's size follows from the width."""
    if model.head_dim is not None and model.head_dim * model.heads != model.hidden:
        yield lacking(model, "head_dim", "model.hidden / model.heads")


def window_problems(model: ModelConfig) -> Iterator[Problem]:
    """No window, and then no layer that lacks it."""
    if model.sliding_window is None and model.full_attention_layers:
        yield lacking(model, "full_attention_layers", "0 without model.sliding_window")
