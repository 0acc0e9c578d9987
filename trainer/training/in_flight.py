"""A step that is taken and not yet recorded."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.backends.base import StepMetrics
from trainer.config.adapters import training_flops_per_token
from trainer.config.schema import Config
from trainer.observe.records import StepRecord
from trainer.observe.stopwatch import StepSeconds


@dataclass(frozen=True)
class InFlight:
    """A step whose metrics are still on the device: an XLA backend reads them a step or two later, without a stall."""

    step: int
    tokens: int
    lr: float
    target_tokens: int
    epochs: dict[str, float]
    metrics: StepMetrics
    seconds: StepSeconds

    def record(
        self, config: Config, peak_flops: float, loss: float, grad_norm: float, finite: bool, left: float
    ) -> StepRecord:
        """Its line in metrics.jsonl, now that its metrics are read. peak_flops: of all ranks. left: seconds."""
        total = self.seconds.total
        tokens_per_second = config.train.tokens_per_step / total
        flops = training_flops_per_token(config.model, config.adapter, config.data.seq_len) * tokens_per_second
        return StepRecord(
            step=self.step,
            tokens=self.tokens,
            loss=loss,
            grad_norm=grad_norm,
            finite=finite,
            lr=self.lr,
            target_tokens=self.target_tokens,
            tokens_per_second=tokens_per_second,
            mfu=flops / peak_flops,
            step_seconds=total,
            data_seconds=self.seconds.data,
            compute_seconds=self.seconds.compute,
            other_seconds=self.seconds.other,
            eta_seconds=left,
            epochs={name: round(count, 4) for name, count in self.epochs.items()},
        )
