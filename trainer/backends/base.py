"""The seam: what the loop asks of whatever executes the step. Everything on the other side may be XLA; nothing here is.

A backend *lowers* a plain model: it decides where parameters live and how gradients meet, and says so in boxes.
Metrics stay on the device (``torch.Tensor``) until ``fetch``; an XLA backend never stalls for them in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from trainer.backends.common.host import HostExchange
from trainer.backends.common.peers import Peers
from trainer.batch import Batch, StepBatch
from trainer.parallel.boxes import Box, Placed, Store
from trainer.parallel.mesh import AXES, Mesh
from trainer.parallel.plan import Plan

BuildModel = Callable[[], nn.Module]
"""Makes the plain model; called under the meta device, so it allocates nothing."""
Initialise = Callable[[Box], torch.Tensor]
"""A box's initial values, of floating dtype and of shape ``box.sizes``; only to be read: they may be a file's."""
GoOn = Callable[[int], bool]
"""Asked before each microbatch, with its number from 0, whether it is to be computed. Ranks that meet within one get
the same answers."""


def always(number: int) -> bool:
    """Compute them all."""
    return True


class StepSource(Protocol):
    """Yields this rank's share of every step, forever; see trainer.data.loader."""

    def __iter__(self) -> Iterator[StepBatch]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Facts:
    """What the backend runs on. ``peak_flops`` is FLOP/s of all ranks together in the compute dtype."""

    device: str
    peak_flops: float
    peak_source: str
    threads: int
    versions: Mapping[str, str]

    def topology(self, mesh: Mesh) -> dict[str, object]:
        """What a bitwise resume depends on besides the configuration; kept in each checkpoint's manifest."""
        axes = {axis: mesh.size(axis) for axis in AXES}
        return {"world": mesh.world, **axes, "device": self.device, "threads": self.threads, **self.versions}

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
    host: HostExchange
    """Of all ranks, for small integers in training."""
    saving: HostExchange
    """Of all ranks, for what set-up and saves exchange, where one rank may take long: a group of its own, whose timeout
    is theirs and not a step's."""
    beside: HostExchange
    """Likewise, of saves that are written beside training, whose collectives may be under way at the same time."""
    fetch_delay: int
    """Steps that the loop lets pass before it fetches a step's metrics: 0 where they are at hand at once."""
    extracting: bool
    """Graphs are only collected for the compiler: results are zeros, and nothing on the host may act on them."""
    ahead_by: int
    """Microbatches by which a rank's host may be ahead of another's that it meets in each of them, and one more."""
    compile_seconds: float
    """What the first work of a kind may take on top, for compilation; 0 where nothing is compiled."""

    def setup(self, peers: Peers | None = None) -> None:
        """Bring up process groups and devices. peers: of this launch, met already; None: to be met here."""

    def shard(self, build: BuildModel, plan: Plan, precision: str) -> None:
        """Lower the plain model by its plan, give its parameters memory without values, make the optimizer over them.

        Raises ConfigError when the plan does not fit the model or the layout.
        precision: fp32 | bf16_mixed | bf16. Which optimizer class that means is the backend's constructor's affair.
        """

    def load_initial(self, initialise: Initialise) -> None:
        """Fill the weights (masters first, rounded once) from the boxes that this rank holds."""

    def ahead(self, source: StepSource) -> StepSource:
        """The same steps, with what they need travelling to the device before it is asked for. Not collective."""

    def forward_backward(self, microbatches: Sequence[Batch], scale: float, go_on: GoOn = always) -> bool:
        """Accumulate the gradients of ``scale`` times the summed loss over this rank's microbatches.

        False where ``go_on`` has ended it: the gradients are good for nothing, and the weights have not moved.
        """

    def clip_and_apply(self, lr: float) -> StepMetrics:
        """Reduce gradients, measure the global norm, clip, update; masked where the norm is not finite."""

    def evaluate(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> tuple[float, int] | None:
        """Global sum of the loss (nats) and number of targets, without gradients; None where ``go_on`` has ended it on
        any rank.
        """

    def losses(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> list[float] | None:
        """Summed loss (nats) of every microbatch of every data-parallel rank, without gradients: rank 0's first.

        Each rank gives as many as the others. None where ``go_on`` has ended it on any rank.
        """

    def next_token_logits(self, tokens: Sequence[int], length: int) -> torch.Tensor:
        """FP32 [vocab] logits after ``tokens``, on the host; computed at the fixed shape [1, length]."""

    def fetch(self, metrics: StepMetrics) -> tuple[float, float, bool]:
        """Read a step's loss, gradient norm and finiteness on the host. Called ``fetch_delay`` steps later."""

    def store(self) -> Store:
        """Weights and moments with their boxes, sharing memory with the live ones."""

    def copies(self) -> Mapping[str, Mapping[str, Placed]]:
        """All that this rank holds and another may hold too, by kind: ``weights`` that the model computes with,
        ``masters``, ``moments``. Host tensors. Called right after ``store``, or between steps.
        """

    def loaded(self, updates: int) -> None:
        """The store was filled from a checkpoint: derive what follows from it (BF16 copies, the step count)."""

    def rng_state(self) -> str:
        """The device's random state as text, for a checkpoint."""

    def set_rng_state(self, state: str) -> None:
        """Inverse of rng_state."""

    def facts(self) -> Facts:
        """What this runs on; measures the peak on first use."""

    def close(self) -> None:
        """Tear down process groups."""
