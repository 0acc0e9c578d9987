"""Small models of every family, as arguments of transformers' own configuration classes."""

from __future__ import annotations

from typing import Any

import transformers

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1000000.0}
YARN_MORE = {**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.25}
YARN_MSCALE = {**YARN, "factor": 40.0, "mscale": 0.7, "mscale_all_dim": 1.0, "truncate": False}
SHORT = 32
"""A context that dynamic scaling has to stretch: samples have 48 tokens."""

BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
}
ODD = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
FALCON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
WINDOWED = {"use_sliding_window": True, "sliding_window": 5, "num_hidden_layers": 3}

MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "llama 1": {"rms_norm_eps": 1e-6},
        "grouped": {"num_key_value_heads": 2},
        "llama 3.2": {"num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True, "rope": LLAMA3},
        "smollm2": {**ODD, "tie_word_embeddings": True},
        "biased": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        "attention biased": {"attention_bias": True},
        "wide heads": {"head_dim": 24, "num_key_value_heads": 2},
        "linear": {"rope": LINEAR},
        "dynamic": {"rope": DYNAMIC, "max_position_embeddings": SHORT},
        "yarn": {"rope": YARN, "num_key_value_heads": 2},
        "yarn, mscale": {"rope": YARN_MSCALE, "hidden_size": 64},
    },
    "mistral": {
        "window": {"sliding_window": 7, "num_key_value_heads": 2},
        "window of two": {"sliding_window": 2},
        "window beyond the sequence": {"sliding_window": 4096, "tie_word_embeddings": True},
        "no window": {"sliding_window": None, "num_key_value_heads": 2, "rope": YARN},
        "nemo": {"sliding_window": None, "head_dim": 12, "num_key_value_heads": 1},
        "odd": {**ODD, "sliding_window": 11, "rope": LINEAR},
        "heads that do not divide": {
            "hidden_size": 40,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 8,
        },
        "dynamic": {"sliding_window": 20, "rope": DYNAMIC, "max_position_embeddings": SHORT},
    },
    "qwen2": {
        "grouped": {"num_key_value_heads": 2},
        "0.5b": {"hidden_size": 56, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "odd": {**ODD, "rope": LLAMA3},
        "windows behind the first layer": {**WINDOWED, "max_window_layers": 1, "num_key_value_heads": 2},
        "windows in all layers": {**WINDOWED, "max_window_layers": 0},
        "windows in no layer": {**WINDOWED, "max_window_layers": 3},
        "yarn": {"num_key_value_heads": 1, "rope": YARN_MORE},
        "dynamic": {"rope": DYNAMIC, "max_position_embeddings": SHORT},
        "linear": {"rope": LINEAR},
    },
    "qwen3": {
        "wide heads": {"head_dim": 24, "num_key_value_heads": 2},
        "tied": {"head_dim": 8, "tie_word_embeddings": True},
        "biased": {"head_dim": 16, "attention_bias": True, "num_key_value_heads": 1},
        "odd": {**ODD, "head_dim": 10, "rope": LINEAR},
        "windows behind the first layer": {**WINDOWED, "head_dim": 8, "max_window_layers": 1, "rope": YARN},
        "dynamic": {"head_dim": 12, "rope": DYNAMIC, "max_position_embeddings": SHORT},
        "llama3": {"head_dim": 16, "rope": LLAMA3},
    },
    "falcon": {
        "7b": {"hidden_size": 56, "num_attention_heads": 7},
        "7b, biased, untied": {"bias": True, "tie_word_embeddings": False},
        "40b": {"new_decoder_architecture": True, "num_attention_heads": 8, "num_kv_heads": 2, "ffn_hidden_size": 40},
        "40b, odd, biased": {
            "new_decoder_architecture": True,
            "hidden_size": 72,
            "num_attention_heads": 9,
            "num_kv_heads": 3,
            "bias": True,
            "rope": LINEAR,
        },
        "11b": {
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "num_ln_in_parallel_attn": 1,
            "tie_word_embeddings": False,
        },
        "40b, one key-value head": {"new_decoder_architecture": True, "num_kv_heads": 1, "rope": YARN},
        "old, multi-head": {"multi_query": False, "parallel_attn": False, "bias": True},
        "old, multi-head, parallel": {"multi_query": False, "rope": DYNAMIC, "max_position_embeddings": SHORT},
        "old, multi-query, in sequence": {"parallel_attn": False, "activation": "gelu_new", "num_kv_heads": 4},
        "llama3": {"rope": LLAMA3},
    },
    "gpt2": {
        "gpt2": {},
        "untied": {"tie_word_embeddings": False},
        "odd": {"n_embd": 36, "n_head": 9, "n_inner": 40},
        "erf": {"activation_function": "gelu", "layer_norm_epsilon": 1e-3},
        "deep": {"n_layer": 4, "n_head": 1, "n_positions": 48},
        "upcast": {"reorder_and_upcast_attn": True, "n_head": 2},
    },
    "olmo2": {
        "7b": {},
        "grouped": {"num_key_value_heads": 2, "rope": LLAMA3},
        "odd, tied": {**ODD, "tie_word_embeddings": True},
        "biased": {"attention_bias": True, "num_key_value_heads": 1},
        "linear": {"rope": LINEAR},
        "dynamic": {"rope": DYNAMIC, "max_position_embeddings": SHORT},
        "yarn": {"rope": YARN},
    },
}
"""By family and name; ``rope`` stands for rope_parameters. What is missing here is in BASES."""

BASES = {"falcon": FALCON, "gpt2": GPT2}
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "falcon": (transformers.FalconConfig, transformers.FalconForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM),
}
NAMES = [(family, name) for family, models in MODELS.items() for name in models]


def arguments(family: str, name: str) -> dict[str, Any]:
    """Of transformers' configuration class; dropout, which some have by default, is off."""
    own = dict(MODELS[family][name])
    rope = own.pop("rope", None)
    # Not the default: transformers gives the row of a padding token no gradient.
    padding = {"pad_token_id": None}
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    return {
        **BASES.get(family, BASE),
        **padding,
        **dropouts,
        **own,
        **({"rope_parameters": dict(rope)} if rope else {}),
    }


def config(family: str, name: str) -> Any:
    """transformers' configuration."""
    made = CLASSES[family][0](**arguments(family, name))
    made.architectures = [CLASSES[family][1].__name__]
    return made
