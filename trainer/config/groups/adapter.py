"""Keys of `adapter`: what is trained in the place of the model's own weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AdapterConfig:
    kind: str = "none"
    """none (the model's own weights are trained) | lora (low-rank updates beside them, arXiv:2106.09685)."""
    rank: int = 16
    """r: rows of A and columns of B."""
    alpha: float = 32.0
    """B A x is scaled by alpha / rank; with rslora by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of the activations zeroed before A, in training."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv:2312.03732)."""
    dora: bool = False
    """Train the length of each output's weights apart from their direction (arXiv:2402.09353)."""
    lr_ratio: float = 1.0
    """Learning rate of B over that of A (LoRA+, arXiv:2402.12354)."""
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules that get one: all-linear (all of the layers'), names (q_proj, lm_head, embed_tokens) or globs of paths
    (model.layers.*.self_attn.[qv]_proj)."""
    also_train: list[str] = field(default_factory=list)
    """Globs of the model's own parameters that are trained as well, such as *norm.weight."""
    init_from: str | None = None
    """Adapters to begin with, and their rank, alpha, rslora, dora and targets: a directory in PEFT's layout, or a run
    or checkpoint of ours that has some. Unset: the model's own outputs to begin with."""
