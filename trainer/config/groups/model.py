"""Keys of `model`: the dimensions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RopeScalingConfig:
    kind: str = "none"
    """none | linear | dynamic | llama3 | yarn."""
    factor: float = 1.0
    """How many times longer than the original context."""
    original_max_positions: int = 8192
    """Context length of the pretrained model, in tokens (dynamic, llama3, yarn)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_max_positions / this are fully scaled."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_max_positions / this are left alone."""
    beta_fast: float = 32.0
    """yarn: dims that turn more often than this within the original context are left alone."""
    beta_slow: float = 1.0
    """yarn: dims that turn less often than this are fully scaled."""
    attention_factor: float | None = None
    """yarn: cosines and sines times this. Unset: 0.1 * ln(factor) + 1, or what mscale says."""
    mscale: float | None = None
    """yarn, with mscale_all_dim: attention_factor is (0.1 * mscale * ln(factor) + 1) over the same with the other."""
    mscale_all_dim: float | None = None
    """yarn: see mscale."""
    truncate: bool = True
    """yarn: the bounds between which dims are blended are whole numbers."""


@dataclass(frozen=True)
class ModelConfig:
    name: str = "tiny"
    """For messages and metadata only."""
    family: str = "llama"
    """Architecture: an entry of trainer/models/families/__init__.py, or module:maker of a user's own."""
    init_from: str | None = None
    """Weights, dimensions and tokenizer to begin with: a directory in Hugging Face's layout, or a checkpoint or run of
    ours. Unset: drawn, by the seed."""
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
    """Width of the feed-forward."""
    vocab: int = 4096
    """Rows of the embedding: at least the tokenizer's number of ids."""
    max_positions: int = 2048
    """Longest sequence that the model is meant for, in tokens."""
    norm: str = "rms"
    """rms (RMSNorm) | layer (LayerNorm, with a bias)."""
    norm_eps: float = 1e-5
    """Added to the mean square, or to the variance."""
    block: str = "pre"
    """How a layer is put together: pre (a norm before attention and before the feed-forward) | post (behind each, OLMo
    2) | parallel (both read the layer's input, each by a norm of its own, Falcon 40B) | parallel_one_norm (Falcon 7B).
    """
    activation: str = "swiglu"
    """Feed-forward: swiglu (gated, three matrices) | gelu | gelu_tanh (two matrices)."""
    position: str = "rotary"
    """rotary | learned (an embedding of each position up to max_positions, added to the tokens')."""
    rope_theta: float = 10000.0
    """Base of the rotary embedding's wavelengths."""
    rope_scaling: RopeScalingConfig = field(default_factory=RopeScalingConfig)
    """Stretching of the rotary embedding for longer contexts."""
    tied: bool = False
    """The head reuses the embedding matrix."""
    qkv_bias: bool = False
    """Query, key and value projections carry a bias."""
    o_bias: bool = False
    """Attention's output projection carries a bias."""
    mlp_bias: bool = False
    """The feed-forward's matrices carry biases."""
    qk_norm: str = "none"
    """none | head (RMSNorm over each head of queries and keys, Qwen3) | all (over all heads together, OLMo 2)."""
    sliding_window: int | None = None
    """Positions that attention looks at, its own included. Unset: all before it."""
    full_attention_layers: int = 0
    """With a sliding window: so many of the first layers look at all positions."""
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
