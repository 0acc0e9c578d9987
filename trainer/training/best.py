"""Where a run was best so far, by the metric of evaluation.best: that checkpoint is saved, and stays."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.checkpoint.state import Best
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.observe.records import EvaluationRecord, SetRecord
from trainer.rules.evaluation import HELDOUT, METRICS

Records = Sequence[EvaluationRecord | SetRecord]


def best_of(wanted: str, records: Records, step: int, before: Best | None) -> Best | None:
    """Now that ``step`` was evaluated. An equal one is no better: the earlier checkpoint stays.

    What was best by another metric, before a resume, counts for nothing; nor does a value that is not finite.
    """
    if before is not None and before.metric != wanted:
        before = None
    value = _value(wanted, records)
    if value is None or not math.isfinite(value):
        return before
    more = METRICS[wanted.rpartition("/")[2]]
    if before is not None and (value <= before.value if more else value >= before.value):
        return before
    return Best(wanted, value, step)


def exhausted(config: EvaluationConfig, step: int, best: Best | None) -> bool:
    """Whether evaluation.patience has ended at ``step``: so many evaluations since the best one."""
    if config.patience is None or best is None or best.metric != config.best:
        return False
    return step - best.step >= config.patience * config.every_steps


def _value(wanted: str, records: Records) -> float | None:
    name, _, metric = wanted.rpartition("/")
    for record in records:
        if isinstance(record, EvaluationRecord) and name == HELDOUT:
            return record.heldout_loss if metric == "loss" else record.bits_per_byte
        if isinstance(record, SetRecord) and name == record.set:
            return record.metrics[metric]
    return None
