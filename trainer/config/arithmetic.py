"""Closed forms about a model: parameters and FLOPs. No torch, so that validation and planning stay instant."""

from __future__ import annotations

from trainer.config.groups.model import ModelConfig


def head_dim(model: ModelConfig) -> int:
    """Size of one attention head."""
    return model.head_dim if model.head_dim is not None else model.hidden // model.heads


def layer_parameters(model: ModelConfig) -> int:
    """Parameters of one decoder layer: attention, SwiGLU, two norms."""
    size = head_dim(model)
    query, key_value = model.heads * size, model.kv_heads * size
    attention = 2 * model.hidden * query + 2 * model.hidden * key_value
    bias = query + 2 * key_value if model.qkv_bias else 0
    return attention + bias + 3 * model.hidden * model.mlp + 2 * model.hidden


def parameters(model: ModelConfig) -> int:
    """All parameters; a tied head counts once."""
    embedding = model.vocab * model.hidden
    head = 0 if model.tied else embedding
    return embedding + model.layers * layer_parameters(model) + model.hidden + head


def matmul_parameters(model: ModelConfig) -> int:
    """Parameters that multiply activations: everything but the embedding's look-up, norms and biases."""
    size = head_dim(model)
    attention = 2 * model.hidden * (model.heads + model.kv_heads) * size
    return model.layers * (attention + 3 * model.hidden * model.mlp) + model.vocab * model.hidden


def flops_per_token(model: ModelConfig, seq_len: int) -> float:
    """FLOPs to train one token, forward and backward, causal attention.

    6 per matrix parameter (Kaplan et al. 2020, arXiv:2001.08361, section 2.1) and 12 * layers * heads * head_dim *
    seq_len for the attention scores and values (PaLM, arXiv:2204.02311, appendix B), halved because a causal query
    sees half the keys on average. Recomputation is not counted (that is hardware utilisation, not MFU).
    """
    attention = 12 * model.layers * model.heads * head_dim(model) * seq_len / 2
    return 6 * matmul_parameters(model) + attention
