"""Losses of held-out batches, without a new graph for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from trainer.backends.base import GoOn
from trainer.backends.neuron import device
from trainer.backends.neuron.lowering.pipeline import Pipeline
from trainer.batch import IGNORED_LABEL, Batch

Phase = Callable[..., AbstractContextManager[None]]
"""A part of a program that has to stay the same graph, by name and inputs."""


def without_targets(batch: Batch) -> Batch:
    """Of the same shape, and without a loss."""
    return batch._replace(labels=torch.full_like(batch.labels, IGNORED_LABEL))


def losses_of_model(
    model: nn.Module, batches: Sequence[Batch], where: torch.device, phase: Phase, go_on: GoOn
) -> list[torch.Tensor] | None:
    """Summed loss of each batch, on the device; None where ``go_on`` has ended it."""
    losses = []
    ones = torch.ones(len(batches[0].tokens), dtype=torch.float32).to(where) if batches else None
    for index, batch in enumerate(device.send(batches)):
        if not go_on(index):
            return None
        with phase("evaluation", {"batch": batch}):
            losses.append(model(*batch, ones))
            device.sync()
    return losses


def losses_of_stages(
    pipeline: Pipeline,
    batches: Sequence[Batch],
    where: torch.device,
    phase: Phase,
    go_on: GoOn,
    zero_grad: Callable[[], None],
) -> list[torch.Tensor] | None:
    """In as many microbatches at a time as training has; the last time, some have no targets."""
    losses = []
    for number, start in enumerate(range(0, len(batches), pipeline.microbatches)):
        if not go_on(number):
            return None
        some = list(batches[start : start + pipeline.microbatches])
        blank = without_targets(some[0])
        inputs: Mapping[str, Any] = {"microbatches": some}
        with phase("evaluation", inputs, cuts_itself=True), torch.enable_grad():
            losses.append(pipeline.loss([*some, *[blank] * (pipeline.microbatches - len(some))], where))
            if pipeline.virtual > 1:
                zero_grad()
            device.sync()
    return losses
