"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.backends.base import Backend, StepMetrics
from trainer.batch import StepBatch
from trainer.errors import ConfigError
from trainer.models.dropout import drawn


@dataclass(frozen=True)
class Agreement:
    """What the ranks agree on before a step, on the host: three integers, one exchange.

    target_tokens: labels to predict in the global batch. stop: whether any rank was asked to stop. failed: whether any
    has failed at something that can wait for the end of the step.
    """

    target_tokens: int
    stop: bool
    failed: bool


def agree(backend: Backend, batch: StepBatch, stop_requested: bool, failed: bool = False) -> Agreement:
    """Exchange counts over all ranks. A signal may have reached one rank only.

    The ranks that share one copy of the model (tp, cp, pp) see the same samples: one of them counts the targets.
    """
    counts = all(backend.mesh.coordinate(axis) == 0 for axis in ("tp", "cp", "pp"))
    mine = [batch.target_tokens if counts else 0, int(stop_requested), int(failed)]
    targets, stops, failures = backend.host_sum(mine)
    return Agreement(targets, stops > 0, failures > 0)


def train_step(backend: Backend, batch: StepBatch, target_tokens: int, lr: float) -> StepMetrics:
    """Forward, backward and update on one global batch.

    The loss is the sum over target tokens divided by the *global* number of them in the step, so that padding,
    document borders and the number of ranks never weigh on it.
    """
    backend.forward_backward(batch.microbatches, scale=1.0 / max(1, target_tokens))
    return backend.clip_and_apply(lr)


def watched_step(backend: Backend, batch: StepBatch, target_tokens: int, lr: float, family: str) -> StepMetrics:
    """The first step of a launch: raises ConfigError, on every rank, where any drew from the host's generator.

    Such a draw depends on the layout and cannot be repeated in a recomputation. family: model.family.
    """
    before = torch.get_rng_state()
    metrics = train_step(backend, batch, target_tokens, lr)
    (ranks,) = backend.host_sum([int(not torch.equal(before, torch.get_rng_state()))])
    if ranks:
        raise ConfigError(drawn(family, f"in the first step {ranks} ranks drew from torch's generator"))
    return metrics
