"""What the native backend needs of an optimizer; trainer.optim.mixed_precision is one. Recipes bring them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn

from trainer.errors import ConfigError, Problem
from trainer.parallel.boxes import Regions
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Rule


class Optimizer(Protocol):
    """Masters and accumulated gradients, with the update split so that the backend owns every collective.

    elementwise: the update of an element does not depend on the others: it may act on a part of a matrix.
    parameters: what the model computes with, as given. gradients: one flat tensor, complete after the last microbatch;
    the backend reduces it in place.
    """

    elementwise: bool
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


def refuse_shards(placements: Mapping[str, Placement]) -> None:
    """Raise ConfigError where a rank has a part of a parameter, and the optimizer needs all of it."""
    cut = [name for name, placement in placements.items() if not placement.whole]
    if cut:
        shown = placements[cut[0]]
        rule = (
            f"an optimizer that updates whole matrices has them whole; of {cut[0]}, {shown.shape}, this rank has"
            f" {shown.local_shape}"
        )
        remedy = "parallel.tp=1 parallel.zero=0; or, if its update is element-wise, set elementwise = True on its class"
        raise ConfigError(Problem("optim.name", f"{len(cut)} parameters are cut", rule, remedy))
