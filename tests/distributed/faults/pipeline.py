"""Pipelines broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tests.distributed.faults.registry import after, cut_fault, fault, nothing, same
from trainer.backends.native.lowering import lower as lowering
from trainer.backends.native.update.optimizer import Optimizer
from trainer.backends.native.update.reduction import Reduction
from trainer.models.decoder import CausalLM


@cut_fault
def a_layer_on_two_stages(stages: Sequence[range]) -> tuple[range, ...]:
    first, second, *rest = stages
    return (first, range(second.start - 1, second.stop), *rest)


@cut_fault
def a_layer_on_no_stage(stages: Sequence[range]) -> tuple[range, ...]:
    first, *rest = stages
    return (range(first.start, first.stop - 1), *rest)


@cut_fault
def stages_in_the_wrong_order(stages: Sequence[range]) -> tuple[range, ...]:
    """As if a rank held neighbours, where the schedule sends from rank to rank."""
    first, second, third, last = stages
    return (first, third, second, last)


@fault
def layers_of_a_stage_in_the_wrong_order() -> None:
    def reverse(self: CausalLM, layers: range) -> None:
        self.model.layers = nn.ModuleDict(dict(reversed(list(self.model.layers.items()))))

    after(CausalLM, "keep_stage", reverse)


@fault
def tied_gradients_not_added() -> None:
    def forget(self: Any, *args: Any, **options: Any) -> None:
        self._ends = None

    after(Reduction, "__init__", forget)


@fault
def tied_weight_counted_at_both_ends() -> None:
    lowering._as_copy = same


@fault
def norm_of_one_stage() -> None:
    original = Reduction.norm

    def norm(self: Reduction, optimizer: Optimizer) -> torch.Tensor:
        kept, self._groups = self._groups, {axis: group for axis, group in self._groups.items() if axis != "pp"}
        try:
            return original(self, optimizer)
        finally:
            self._groups = kept

    Reduction.norm = norm  # type: ignore[method-assign]


@fault
def loss_known_to_the_last_stage_only() -> None:
    Reduction.loss = nothing  # type: ignore[method-assign]
