"""What the native backend needs of an optimizer; trainer.optim.mixed_precision is one. Recipes bring them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn

from trainer.parallel.boxes import Regions
from trainer.parallel.plan import Rule


class Optimizer(Protocol):
    """Masters and accumulated gradients, with the update split so that the backend owns every collective.

    parameters: what the model computes with, as given. gradients: one flat tensor, complete after the last microbatch;
    the backend reduces it in place.
    """

    parameters: dict[str, nn.Parameter]
    masters: dict[str, torch.Tensor]
    gradients: torch.Tensor

    def gradient(self, name: str) -> torch.Tensor: ...
    def collect(self) -> None: ...
    def squared_norm(self) -> torch.Tensor: ...
    def update(self, lr: float, norm: torch.Tensor) -> torch.Tensor: ...
    def publish(self) -> None: ...
    def moments(self) -> dict[str, torch.Tensor]: ...
    @property
    def updates(self) -> int: ...
    @updates.setter
    def updates(self, count: int) -> None: ...


MakeOptimizer = Callable[[Mapping[str, nn.Parameter], Mapping[str, Rule], str, Regions], Optimizer]
"""Makes the optimizer over the lowered model's parameters, by canonical name, with
their rules, for a precision mode; the regions are the
parts of the gradients that this rank counts in the global norm, which other ranks may hold too."""
