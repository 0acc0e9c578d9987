"""Keys of `logging`: what is printed and tracked."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WandbConfig:
    mode: str = "off"
    """off | auto (online with an account, else offline) | online | offline (`wandb sync` sends it later)."""
    project: str = "trainer"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Unset: the account's own."""
    group: str | None = None
    """W&B group of runs."""
    tags: list[str] = field(default_factory=list)
    """W&B tags."""


@dataclass(frozen=True)
class LoggingConfig:
    every_steps: int = 10
    """Print a line every so many steps; metrics.jsonl has every step."""
    progress: str = "auto"
    """auto (a bar on a terminal, plain lines elsewhere) | bar | lines | off."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases, beside metrics.jsonl."""
