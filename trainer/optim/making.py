"""The optimizer that optim.name names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.config.plugins import call_named
from trainer.optim import OPTIMIZERS
from trainer.optim.mixed_precision import MixedPrecision
from trainer.optim.plugin import KEY, PluginOptimizer
from trainer.parallel.boxes import Regions
from trainer.parallel.plan import Rule


def make_optimizer(
    config: OptimConfig, parameters: Mapping[str, nn.Parameter], rules: Mapping[str, Rule], mode: str, counted: Regions
) -> MixedPrecision:
    """Made by its entry in the table; a module:maker of a user's own gets the mixed-precision contract around it."""
    if config.name not in OPTIMIZERS:
        return PluginOptimizer(parameters, rules, config, mode, counted)
    made: MixedPrecision = call_named(KEY, OPTIMIZERS[config.name], parameters, rules, config, mode, counted)
    return made
