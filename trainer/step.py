"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.backends.base import Backend, StepMetrics
from trainer.batch import StepBatch


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind: device metrics, and what the ranks agreed on before it."""

    metrics: StepMetrics
    target_tokens: int
    stop_requested: bool


def train_step(backend: Backend, batch: StepBatch, lr: float, stop_requested: bool) -> StepResult:
    """Forward, backward and update on one global batch.

    The loss is the sum over target tokens divided by the *global* number of them in the step, so that padding,
    document borders and the number of ranks never weigh on it. A signal may have reached one rank only: whether to
    stop is agreed on in the same exchange as the count.
    """
    target_tokens, stops = backend.host_sum([batch.target_tokens, int(stop_requested)])
    backend.forward_backward(batch.microbatches, scale=1.0 / max(1, target_tokens))
    metrics = backend.clip_and_apply(lr)
    backend.step_end()
    return StepResult(metrics, target_tokens, stops > 0)
