"""The seam: what the loop asks of whatever executes the step. Everything on the other side may be XLA; nothing here is.

A backend *lowers* a plain model: it decides where parameters live and how gradients meet, and says so in boxes.
Metrics stay on the device (``torch.Tensor``) until ``fetch``; an XLA backend never stalls for them in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from trainer.batch import Batch
from trainer.parallel.boxes import Box, Store
from trainer.parallel.mesh import Mesh

BuildModel = Callable[[], nn.Module]
"""Makes the plain model; called under the meta device, so it allocates nothing."""
Initialise = Callable[[Box], torch.Tensor]
"""Draws a box's initial values, FP32 of shape ``box.sizes``."""


class Optimizer(Protocol):
    """What a backend needs of an optimizer: trainer.optim.mixed_precision on native, its own class on neuron."""

    masters: dict[str, torch.Tensor]
    gradients: torch.Tensor

    def apply(self, lr: float) -> tuple[torch.Tensor, torch.Tensor]: ...
    def publish(self) -> None: ...
    def moments(self) -> dict[str, torch.Tensor]: ...
    @property
    def updates(self) -> int: ...
    @updates.setter
    def updates(self, count: int) -> None: ...


BuildOptimizer = Callable[[Mapping[str, nn.Parameter]], Optimizer]
"""Makes the optimizer over the lowered model's parameters, by canonical name."""


@dataclass(frozen=True)
class Facts:
    """What the backend runs on. ``peak_flops`` is FLOP/s of all ranks together in the compute dtype."""

    device: str
    peak_flops: float
    peak_source: str
    threads: int
    versions: Mapping[str, str]

    def describe(self) -> list[str]:
        """For people, where the run is announced."""
        return [
            f"  on {self.device}, {self.threads} thread(s) a process",
            f"  peak {self.peak_flops / 1e9:,.0f} GFLOP/s over all processes: {self.peak_source}",
        ]


@dataclass(frozen=True)
class StepMetrics:
    """Device scalars of one step, equal on every rank.

    loss_sum: summed cross-entropy over the global targets, times the scale given to forward_backward.
    grad_norm: global L2 norm before clipping. finite: whether it was, and so whether the update happened.
    """

    loss_sum: torch.Tensor
    grad_norm: torch.Tensor
    finite: torch.Tensor


class Backend(Protocol):
    """Executes steps. Methods are collective unless said otherwise: every rank calls them in the same order."""

    mesh: Mesh
    fetch_delay: int
    """Steps that the loop lets pass before it fetches a step's metrics: 0 where they are at hand at once."""

    def setup(self) -> None:
        """Bring up process groups and devices."""

    def shard(self, build: BuildModel, dtype: torch.dtype) -> None:
        """Lower the plain model and give its parameters memory, without values."""

    def optimizer(self, build: BuildOptimizer) -> None:
        """Make the optimizer over the lowered parameters; moments are allocated at once."""

    def load_initial(self, initialise: Initialise) -> None:
        """Fill the weights (masters first, rounded once) from the boxes that this rank holds."""

    def forward_backward(self, microbatches: Sequence[Batch], scale: float) -> None:
        """Accumulate the gradients of ``scale`` times the summed loss over this rank's microbatches."""

    def clip_and_apply(self, lr: float) -> StepMetrics:
        """Reduce gradients, measure the global norm, clip, update; masked where the norm is not finite."""

    def step_end(self) -> None:
        """The step is over: an XLA backend cuts its graph here."""

    def evaluate(self, microbatches: Sequence[Batch]) -> tuple[float, int]:
        """Global sum of the loss (nats) and number of targets, without gradients."""

    def next_token_logits(self, tokens: Sequence[int], length: int) -> torch.Tensor:
        """FP32 [vocab] logits after ``tokens``, on the host; computed at the fixed shape [1, length]."""

    def fetch(self, metrics: StepMetrics) -> tuple[float, float, bool]:
        """Read a step's loss, gradient norm and finiteness on the host. Called ``fetch_delay`` steps later."""

    def store(self) -> Store:
        """Weights and moments with their boxes, sharing memory with the live ones."""

    def loaded(self, updates: int) -> None:
        """The store was filled from a checkpoint: derive what follows from it (BF16 copies, the step count)."""

    @property
    def updates(self) -> int:
        """Optimizer updates made: steps less those that were masked."""

    def facts(self) -> Facts:
        """What this runs on; measures the peak on first use."""

    def host_sum(self, values: Sequence[int]) -> list[int]:
        """Sum small host integers over the data-parallel axis."""

    def host_broadcast(self, value: int) -> int:
        """Rank 0's host integer, on every rank."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def close(self) -> None:
        """Tear down process groups."""
