"""Records of a run: metrics.jsonl holds one JSON object a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. Times in seconds, losses in nats per target token.

    epochs: how often each source's samples have been seen, by name.
    """

    step: int
    tokens: int
    loss: float
    grad_norm: float
    finite: bool
    lr: float
    target_tokens: int
    tokens_per_second: float
    mfu: float
    step_seconds: float
    data_seconds: float
    compute_seconds: float
    other_seconds: float
    eta_seconds: float
    epochs: dict[str, float] = field(default_factory=dict)
    kind: str = "step"


@dataclass(frozen=True)
class EvaluationRecord:
    """Held-out loss. bits_per_byte is comparable between tokenizers; zlib's is measured on the same windows."""

    step: int
    tokens: int
    heldout_loss: float
    bits_per_byte: float
    zlib_bits_per_byte: float
    seconds: float
    sample: str
    kind: str = "evaluation"


@dataclass(frozen=True)
class SetRecord:
    """One of evaluation.sets. metrics: by name, those of docs/evaluate.md."""

    step: int
    tokens: int
    set: str
    metrics: dict[str, float]
    seconds: float
    kind: str = "set"


@dataclass(frozen=True)
class SaveRecord:
    """A committed checkpoint."""

    step: int
    path: str
    seconds: float
    kind: str = "save"


Record = StepRecord | EvaluationRecord | SetRecord | SaveRecord


def to_json(record: Record) -> dict[str, Any]:
    """JSON-ready, the kind first; the metrics of a set beside its name."""
    values = asdict(record)
    values |= values.pop("metrics", {})
    return {"kind": values.pop("kind"), **values}
