"""Data parallelism, accumulation and ZeRO broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tests.distributed.faults.registry import after, fault, nothing
from trainer.backends.base import GoOn
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.lowering.fully_sharded import FullySharded
from trainer.backends.native.update.optimizer import Optimizer
from trainer.backends.native.update.reduction import Reduction
from trainer.batch import IGNORED_LABEL, Batch
from trainer.data.loader import TrainLoader


@fault
def loss_averaged_per_microbatch() -> None:
    """A mean of the microbatches' means: the same number on average, and wrong where documents are uneven."""
    original = NativeBackend.forward_backward

    def forward_backward(self: NativeBackend, microbatches: Sequence[Batch], scale: float, go_on: GoOn) -> bool:
        total = torch.zeros(())
        for batch in microbatches:
            targets = max(1, int((batch.labels != IGNORED_LABEL).sum()))
            original(self, [batch], 1.0 / (targets * len(microbatches) * self.mesh.dp))
            total += self._loss
        self._loss.copy_(total)
        return True

    NativeBackend.forward_backward = forward_backward  # type: ignore[method-assign]


@fault
def last_microbatch_only() -> None:
    """Gradients of the others are overwritten; the loss is whole."""
    original = NativeBackend.forward_backward

    def forward_backward(self: NativeBackend, microbatches: Sequence[Batch], scale: float, go_on: GoOn) -> bool:
        original(self, microbatches, scale, go_on)
        whole = self._loss.clone()
        self._optimizer.gradients.zero_()
        original(self, microbatches[-1:], scale, go_on)
        self._loss.copy_(whole)
        return True

    NativeBackend.forward_backward = forward_backward  # type: ignore[method-assign]


@fault
def draws_counted_from_the_share() -> None:
    """Dropout's keys by the sample's number on this rank, not in the run."""
    original = TrainLoader.samples

    def samples(self: TrainLoader, draws: Sequence[Any], number: int) -> Any:
        return original(self, draws, number - self._slice.start)

    TrainLoader.samples = samples  # type: ignore[method-assign]


@fault
def zero_gradients_averaged() -> None:
    def average(self: Any, model: nn.Module, plan: Any, stage: int, group: dist.ProcessGroup, precision: str) -> None:
        for module in self._modules():
            module.set_gradient_divide_factor(float(dist.get_world_size(group)))

    after(FullySharded, "__init__", average)


@fault
def zero_computes_with_stale_weights() -> None:
    FullySharded.forget_gathered = nothing  # type: ignore[method-assign]


@fault
def zero_norm_of_one_shard() -> None:
    original = Reduction.norm

    def norm(self: Reduction, optimizer: Optimizer) -> torch.Tensor:
        self._sharded = False
        return original(self, optimizer)

    Reduction.norm = norm  # type: ignore[method-assign]
