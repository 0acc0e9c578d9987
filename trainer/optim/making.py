"""The optimizer that optim.name names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.config.plugins import load_named
from trainer.optim import OPTIMIZERS
from trainer.optim.mixed_precision import MixedPrecision
from trainer.optim.plugin import KEY, PluginOptimizer
from trainer.parallel.boxes import Regions
from trainer.parallel.plan import Rule


def make_optimizer(
    config: OptimConfig, parameters: Mapping[str, nn.Parameter], rules: Mapping[str, Rule], mode: str, counted: Regions
) -> MixedPrecision:
    """Made by its entry in the table, or by a module:maker of a user's own: a MixedPrecision is called as one, and
    anything else is an optimizer of torch's interface, which gets the mixed-precision contract around it.
    """
    maker = load_named(KEY, OPTIMIZERS.get(config.name, config.name))
    kind = maker if isinstance(maker, type) and issubclass(maker, MixedPrecision) else PluginOptimizer
    return kind(parameters, rules, config, mode, counted)
