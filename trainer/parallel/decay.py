"""The parameter groups of an optimizer, as the plan's rules say: what decays, and at which learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.parallel.plan import Rule

if TYPE_CHECKING:
    import torch


def parameter_groups(
    masters: Mapping[str, torch.Tensor], rules: Mapping[str, Rule], weight_decay: float
) -> list[dict[str, Any]]:
    """Those that decay first, each kind by its learning rate. rules: by the same names.

    A group has ``lr_scale`` where it is not 1: its learning rate over that of the others.
    """
    groups = []
    for decay in (True, False):
        for scale in sorted({rules[name].lr_scale for name in masters}):
            mine = [p for name, p in masters.items() if (rules[name].decay, rules[name].lr_scale) == (decay, scale)]
            scaled = {} if scale == 1.0 else {"lr_scale": scale}
            groups.append({"params": mine, "weight_decay": weight_decay if decay else 0.0, **scaled})
    return [group for group in groups if group["params"]]


def rate_of(group: Mapping[str, Any], lr: Any) -> Any:
    """The learning rate of a group, where that of the others is ``lr`` (a number, or a tensor)."""
    return lr * group["lr_scale"] if "lr_scale" in group else lr
