"""Keys of `model`: the dimensions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RopeScalingConfig:
    kind: str = "none"
    """none | linear | llama3."""
    factor: float = 1.0
    """How many times longer than the original context."""
    original_max_positions: int = 8192
    """Context length of the pretrained model, in tokens (llama3)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_max_positions / this are fully scaled."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_max_positions / this are left alone."""


@dataclass(frozen=True)
class ModelConfig:
    name: str = "tiny"
    """For messages and metadata only."""
    family: str = "llama"
    """Architecture: an entry of trainer/models/families/__init__.py, or module:maker of a user's own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that a family of a user's own reads."""
    hidden: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Number of decoder layers."""
    heads: int = 4
    """Number of query heads."""
    kv_heads: int = 4
    """Number of key and value heads; divides `heads` (grouped-query attention when fewer)."""
    head_dim: int | None = None
    """Size of one head. Unset: hidden / heads."""
    mlp: int = 704
    """Width of the SwiGLU feed-forward."""
    vocab: int = 4096
    """Rows of the embedding: at least the tokenizer's number of ids."""
    max_positions: int = 2048
    """Longest sequence that the model is meant for, in tokens."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary embedding's wavelengths."""
    rope_scaling: RopeScalingConfig = field(default_factory=RopeScalingConfig)
    """Stretching of the rotary embedding for longer contexts."""
    tied: bool = False
    """The head reuses the embedding matrix."""
    qkv_bias: bool = False
    """Query, key and value projections carry a bias."""
    init_std: float = 0.02
    """Standard deviation of the initial weights."""
    dropout: float = 0.0
    """Share of the activations zeroed in training, behind the embedding, attention and feed-forward."""
    frozen: list[str] = field(default_factory=list)
    """Globs of parameters that are not trained, such as model.embed_tokens.weight or model.layers.[0-3].*."""
    loss_chunk_tokens: int = 1024
    """Tokens whose logits exist at the same time in the loss. Memory only."""
    published_parameters: int | None = None
    """Parameters of the published checkpoint, where its index tells: to check the dimensions against."""
