"""One optimizer step."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.backends.base import Backend, GoOn, StepMetrics, always
from trainer.batch import StepBatch
from trainer.errors import ConfigError, Problem, ReplicasError
from trainer.models.dropout import drawn


@dataclass(frozen=True)
class Agreement:
    """What the ranks agree on before a step, on the host: one exchange of small integers.

    target_tokens: labels to predict in the global batch. stop: whether any rank was asked to stop. failed: whether any
    has failed at something that can wait for the end of the step. save: whether a save is due by rank 0's clock.
    """

    target_tokens: int
    stop: bool
    failed: bool
    save: bool = False


@dataclass(frozen=True)
class Wish:
    """What a rank brings to the agreement: the same words, before they are put together."""

    stop: bool = False
    failed: bool = False
    save: bool = False


def agree(backend: Backend, batch: StepBatch, step: int, wish: Wish) -> Agreement:
    """Exchange counts over all ranks. A signal may have reached one rank only, and each has a clock of its own.

    The ranks that share one copy of the model (tp, cp, pp) see the same samples: one of them counts the targets.
    step: steps done. Raises ReplicasError on every rank where they are not at the same step and place in the data,
    unless one has failed.
    """
    counts = all(backend.mesh.coordinate(axis) == 0 for axis in ("tp", "cp", "pp"))
    place = zlib.crc32(json.dumps([step, batch.cursor], sort_keys=True, default=str).encode()) >> 8
    mine = [batch.target_tokens if counts else 0, int(wish.stop), int(wish.failed), place, place * place]
    mine.append(int(wish.save and backend.mesh.rank == 0))
    targets, stops, failures, places, squares, saves = backend.host.sum(mine)
    # Equal exactly where all places are (Cauchy and Schwarz). A rank that has failed may have no place to tell.
    if not failures and backend.mesh.world * squares != places * places:
        raise ReplicasError(apart(backend, step))
    return Agreement(targets, stops > 0, failures > 0, saves > 0)


def apart(backend: Backend, step: int) -> Problem:
    """Which ranks are at which step. Collective."""
    steps = [int(one) for one in backend.host.gather(str(step).encode())]
    shown = ", ".join(f"rank {rank} at step {steps[rank]}" for rank in range(min(len(steps), 8)))
    rule = f"every rank is at the same step and place in the data; {shown}, or their data orders differ"
    return Problem("step", step, rule, "give the same command on every node; it goes on from the newest checkpoint")


def train_step(
    backend: Backend,
    batch: StepBatch,
    target_tokens: int,
    lr: float,
    go_on: GoOn = always,
    before_update: Callable[[], object] = lambda: None,
) -> StepMetrics | None:
    """Forward, backward and update on one global batch. None where a rank has ended it: the weights are as before.

    The loss is the sum over target tokens divided by the *global* number of them in the step, so that padding,
    document borders and the number of ranks never weigh on it. before_update: called once nothing reads the weights any
    more as they are.
    """
    complete = backend.forward_backward(batch.microbatches, 1.0 / max(1, target_tokens), go_on)
    if any(backend.host.sum([int(not complete)])):
        return None
    before_update()
    return backend.clip_and_apply(lr)


def watched_step(
    backend: Backend, batch: StepBatch, target_tokens: int, lr: float, family: str, go_on: GoOn = always
) -> StepMetrics | None:
    """The first step of a launch: raises ConfigError, on every rank, where any drew from the host's generator.

    Such a draw depends on the layout and cannot be repeated in a recomputation. family: model.family.
    """
    before = torch.get_rng_state()
    metrics = train_step(backend, batch, target_tokens, lr, go_on)
    (ranks,) = backend.host.sum([int(not torch.equal(before, torch.get_rng_state()))])
    if ranks:
        raise ConfigError(drawn(family, f"in the first step {ranks} ranks drew from torch's generator"))
    return metrics
