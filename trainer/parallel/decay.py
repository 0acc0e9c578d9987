"""Which parameters decay, as the plan's rules say: the parameter groups of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.parallel.plan import Rule

if TYPE_CHECKING:
    import torch


def parameter_groups(
    masters: Mapping[str, torch.Tensor], rules: Mapping[str, Rule], weight_decay: float
) -> list[dict[str, Any]]:
    """What decays and what does not, as the plan's rules say. rules: by the same names."""
    decayed = [p for name, p in masters.items() if rules[name].decay]
    others = [p for name, p in masters.items() if not rules[name].decay]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
