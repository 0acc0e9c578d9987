"""Falcon (arXiv:2311.16867): 7B (multi-query, one norm), 40B and 180B (grouped, two norms), Falcon2 11B, and the older
multi-head models without ALiBi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem
from trainer.pretrained.format import FileTensor, Format, Part, elsewhere, renamed
from trainer.pretrained.keys import Keys, refusal
from trainer.pretrained.llama_like import (
    ANY,
    SWITCHES,
    lacking,
    other_head_dim,
    read_head_dim,
    read_kv_heads,
    same_biases,
    unsaid,
)
from trainer.pretrained.rope import read_rope, write_rope
from trainer.pretrained.shapes import parameter_shapes

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
LAYER = "transformer.h"


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Which keys count depends on new_decoder_architecture."""
    keys = Keys(values)
    keys.only("alibi", False, "the decoder has rotary and learned positions; choose a model without ALiBi")
    keys.only("apply_residual_connection_post_layernorm", False, "no published model adds what is normalised")
    hidden = keys.whole("n_embed", None) or keys.whole("hidden_size")
    heads, biased = keys.whole("num_attention_heads"), keys.flag("bias", False)
    return {
        **SWITCHES,
        "norm": "layer",
        **(_new(keys, heads) if keys.flag("new_decoder_architecture", False) else _old(keys, heads)),
        "activation": keys.choice("activation", ACTIVATIONS, "gelu", "the decoder's plain feed-forward computes GELU"),
        "qkv_bias": biased,
        "o_bias": biased,
        "mlp_bias": biased,
        "hidden": hidden,
        "layers": keys.whole("num_hidden_layers"),
        "heads": heads,
        "mlp": keys.whole("ffn_hidden_size", 4 * hidden),
        "vocab": keys.whole("vocab_size"),
        "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        **read_rope(keys, 2048),
        **read_head_dim(keys, hidden, heads, None),
    }


def _new(keys: Keys, heads: int) -> dict[str, Any]:
    """40B's: grouped; multi_query is not looked at."""
    norms = keys.whole("num_ln_in_parallel_attn", 2)
    keys.only("parallel_attn", True, "transformers cannot run the new architecture without it either")
    if norms > 2:
        raise refusal("num_ln_in_parallel_attn", norms, "1 or 2", "take config.json as its publisher gives it")
    block = "parallel" if norms == 2 else "parallel_one_norm"
    return {"kv_heads": read_kv_heads(keys, "num_kv_heads", heads, heads), "block": block}


def _old(keys: Keys, heads: int) -> dict[str, Any]:
    """7B's and earlier. With multi_query num_kv_heads is not looked at, whatever it says."""
    parallel = keys.flag("parallel_attn", True)
    if parallel and keys.whole("num_ln_in_parallel_attn", 1) != 1:
        rule = "1, or null: transformers cannot run the old architecture with two either"
        raise refusal("num_ln_in_parallel_attn", keys.values["num_ln_in_parallel_attn"], rule, "correct it")
    block = "parallel_one_norm" if parallel else "pre"
    if keys.flag("multi_query", True):
        return {"kv_heads": 1, "block": block}
    if (stated := keys.whole("num_kv_heads", heads)) != heads:
        rule = f"num_attention_heads ({heads}) in the old architecture without multi_query"
        raise refusal("num_kv_heads", stated, rule, "correct it")
    return {"kv_heads": heads, "block": block}


def write(model: ModelConfig) -> dict[str, Any]:
    """The old architecture where it can say it: what is on disk is the same."""
    new = model.block == "parallel" or model.kv_heads not in (1, model.heads)
    names = {meaning: name for name, meaning in reversed(ACTIVATIONS.items())}
    return {
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_kv_heads": model.kv_heads,
        "new_decoder_architecture": new,
        "multi_query": model.kv_heads == 1,
        "parallel_attn": model.block != "pre",
        "num_ln_in_parallel_attn": 2 if model.block == "parallel" else 1,
        "alibi": False,
        "bias": model.qkv_bias,
        "activation": names[model.activation],
        "ffn_hidden_size": model.mlp,
        "layer_norm_epsilon": model.norm_eps,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        **write_rope(model),
    }


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """One bias for all; a head's size follows from the width; grouped heads only in parallel blocks."""
    yield from unsaid(
        model,
        norm=("layer",),
        block=("parallel", "parallel_one_norm", "pre"),
        activation=("gelu", "gelu_tanh"),
        qkv_bias=ANY,
        o_bias=ANY,
        mlp_bias=ANY,
    )
    yield from same_biases(model, "qkv_bias", "o_bias", "mlp_bias")
    yield from other_head_dim(model)
    if model.block == "pre" and model.kv_heads not in (1, model.heads):
        yield lacking(model, "kv_heads", "1 or model.heads where model.block is pre")


NAMES = {
    "model.embed_tokens": "transformer.word_embeddings",
    "model.norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "self_attn.q_proj": "self_attention.query_key_value",  # of all three
    "self_attn.o_proj": "self_attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
}
NORMS = {"input_layernorm": "ln_attn", "post_attention_layernorm": "ln_mlp"}
"""With two norms in a parallel block."""


def tensors(model: ModelConfig) -> Iterator[FileTensor]:
    """Queries, keys and values are one tensor: group after group its queries' heads, its key's, its value's.

    transformers words it three ways: by group in the new architecture; in the old all queries, key, value where there
    is one key (one group), and query, key, value for each head where there are as many keys (a group each).
    """
    names = {**NAMES, **NORMS} if model.block == "parallel" else NAMES
    for name, shape in parameter_shapes(model).items():
        path, _, kind = name.rpartition(".")
        if path.endswith("q_proj"):
            yield _fused(model, path.removesuffix(".q_proj"), elsewhere(path, names, LAYER), kind, shape)
        elif not path.endswith(("k_proj", "v_proj")):
            yield renamed(f"{elsewhere(path, names, LAYER)}.{kind}", name, shape)


def _fused(model: ModelConfig, ours: str, theirs: str, kind: str, shape: tuple[int, ...]) -> FileTensor:
    size, group = head_dim(model), model.heads // model.kv_heads
    parts, at = [], 0
    for head in range(model.kv_heads):
        for name, count in (("q", group), ("k", 1), ("v", 1)):
            parts.append(Part(f"{ours}.{name}_proj.{kind}", head * count * size, at, count * size))
            at += count * size
    return FileTensor(f"{theirs}.{kind}", (at, *shape[1:]), tuple(parts))


FORMAT = Format(
    model_types=("falcon",),
    architectures=("FalconForCausalLM",),
    read=read,
    write=write,
    tensors=tensors,
    lacks=lacks,
    ignored=("*.rotary_emb.inv_freq",),
    tied=True,
)
