"""Keys of `optim`: the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OptimConfig:
    name: str = "adamw"
    """An entry of trainer/optim/__init__.py, or module:maker of a user's own: maker(groups, lr=lr, **options)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of that maker. It gets lr, weight_decay and clip_norm from here, and neither betas nor eps."""
    lr: float = 1e-3
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled decay, times the learning rate; matrices only: norms and biases are excluded."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
