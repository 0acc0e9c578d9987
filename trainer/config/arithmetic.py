"""Closed forms about a model: parameters and FLOPs. No torch, so that validation and planning stay instant."""

from __future__ import annotations

import math

from trainer.config.groups.model import ModelConfig, RopeScalingConfig


def head_dim(model: ModelConfig) -> int:
    """Size of one attention head."""
    return model.head_dim if model.head_dim is not None else model.hidden // model.heads


def layer_parameters(model: ModelConfig) -> int:
    """Parameters of one decoder layer."""
    return layer_matrices(model) + _layer_biases(model) + _layer_norms(model)


def layer_matrices(model: ModelConfig) -> int:
    """Of one decoder layer, what multiplies activations: attention's four matrices, the feed-forward's two or three."""
    attention = 2 * model.hidden * (model.heads + model.kv_heads) * head_dim(model)
    return attention + feed_forward_matrices(model) * model.hidden * model.mlp


def feed_forward_matrices(model: ModelConfig) -> int:
    """Three where a gate is one of them."""
    return 3 if model.activation == "swiglu" else 2


def _layer_biases(model: ModelConfig) -> int:
    size = head_dim(model)
    return (
        model.qkv_bias * (model.heads + 2 * model.kv_heads) * size
        + model.o_bias * model.hidden
        + model.mlp_bias * ((feed_forward_matrices(model) - 1) * model.mlp + model.hidden)
    )


def _layer_norms(model: ModelConfig) -> int:
    size = head_dim(model)
    between = (1 if model.block == "parallel_one_norm" else 2) * norm_parameters(model)
    return between + {"head": 2 * size, "all": (model.heads + model.kv_heads) * size}.get(model.qk_norm, 0)


def norm_parameters(model: ModelConfig) -> int:
    """Of one norm between blocks."""
    return model.hidden * (2 if model.norm == "layer" else 1)


def parameters(model: ModelConfig) -> int:
    """All parameters; a tied head counts once."""
    embedding = model.vocab * model.hidden
    head = 0 if model.tied else embedding
    positions = model.max_positions * model.hidden if model.position == "learned" else 0
    return embedding + positions + model.layers * layer_parameters(model) + norm_parameters(model) + head


def matmul_parameters(model: ModelConfig) -> int:
    """Parameters that multiply activations: everything but the embeddings' look-up, norms and biases."""
    return model.layers * layer_matrices(model) + model.vocab * model.hidden


def flops_per_token(model: ModelConfig, seq_len: int) -> float:
    """FLOPs to train one token, forward and backward, causal attention.

    6 per matrix parameter (Kaplan et al. 2020, arXiv:2001.08361, section 2.1) and 12 * layers * heads * head_dim *
    seq_len for the attention scores and values (PaLM, arXiv:2204.02311, appendix B), halved because a causal query
    sees half the keys on average; with a window of w it sees w - w^2 / (2 seq_len). Recomputation is not counted (that
    is hardware utilisation, not MFU).
    """
    windowed = sum(layer_has_window(model, layer) for layer in range(model.layers))
    window = min(model.sliding_window or seq_len, seq_len)
    seen = (model.layers - windowed) * seq_len / 2 + windowed * (window - window**2 / (2 * seq_len))
    return 6 * matmul_parameters(model) + 12 * model.heads * head_dim(model) * seen


def layer_has_window(model: ModelConfig, layer: int) -> bool:
    """Whether a layer's attention looks at model.sliding_window positions only."""
    return model.sliding_window is not None and layer >= model.full_attention_layers


def attention_factor(scaling: RopeScalingConfig) -> float:
    """What cosines and sines are multiplied by (arXiv:2309.00071, section 3.4; DeepSeek-V2's mscale)."""
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling.factor, scaling.mscale) / _mscale(scaling.factor, scaling.mscale_all_dim)
    return _mscale(scaling.factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
