"""An optimizer of nothing: what a backend is given where weights are only read. It holds no masters and no moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from trainer.parallel.boxes import Regions
from trainer.parallel.plan import Rule


class NoOptimizer:
    """Has the interface of trainer.backends.native.update.optimizer.Optimizer, and nothing to do."""

    elementwise = True
    updates = 0

    def __init__(self) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        self.masters: dict[str, torch.Tensor] = {}
        self.gradients = torch.empty(0)

    def gradient(self, name: str) -> torch.Tensor:
        """There is none."""
        raise KeyError(name)

    def collect(self) -> None:
        """Nothing appears."""

    def squared_norm(self) -> torch.Tensor:
        """Of no gradients."""
        return torch.zeros(())

    def update(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Nothing changes."""
        return torch.ones((), dtype=torch.bool)

    def publish(self) -> None:
        """The weights are in the model already."""

    def moments(self) -> dict[str, torch.Tensor]:
        """None."""
        return {}


def no_optimizer(
    parameters: Mapping[str, nn.Parameter], rules: Mapping[str, Rule], precision: str, counted: Regions
) -> NoOptimizer:
    """A trainer.backends.native.update.optimizer.MakeOptimizer, of a plan whose parameters are all frozen."""
    assert not parameters, "something is trained"
    return NoOptimizer()
