"""What result.json keeps of a run that is complete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainer.checkpoint.state import TrainState
from trainer.observe.records import EvaluationRecord, SetRecord


def result_of(state: TrainState, evaluated: Iterable[EvaluationRecord | SetRecord]) -> dict[str, Any]:
    """Where the run ended, its last evaluation, and where it was best."""
    result: dict[str, Any] = {"step": state.step, "tokens": state.tokens}
    for record in evaluated:
        if isinstance(record, SetRecord):
            result |= {f"{record.set}/{name}": value for name, value in record.metrics.items()}
        else:
            result["heldout_loss"] = record.heldout_loss
            result["bits_per_byte"] = record.bits_per_byte
            result["zlib_bits_per_byte_same_windows"] = record.zlib_bits_per_byte
    if state.best is not None:
        result |= {"best_step": state.best.step, f"best_{state.best.metric}": state.best.value}
    return result
