"""What a resume needs besides tensors: plain JSON."""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.checkpoint.base import Base
from trainer.checkpoint.strict_json import Unsound, mapping, shown, whole


@dataclass(frozen=True)
class Best:
    """The best evaluation so far. metric: as evaluation.best names it."""

    metric: str
    value: float
    step: int


@dataclass
class TrainState:
    """Progress of a run.

    step: optimizer steps finished. tokens: tokens trained on, with or without a target. updates: steps whose update
    was applied. nonfinite: consecutive steps, up to this one, whose update was masked. rng: the backend's random state.
    cursor: the loader's position in the global data order. corpus: fingerprints of the tokenizer and of each source's
    tokens, by name. best: None where evaluation.best is not set, or nothing was evaluated yet. base: where the weights
    are that are not trained and not stored; None where all are stored.
    """

    step: int = 0
    tokens: int = 0
    updates: int = 0
    nonfinite: int = 0
    cursor: dict[str, object] | None = None
    rng: str = ""
    corpus: dict[str, str] = field(default_factory=dict)
    best: Best | None = None
    base: Base | None = None

    def to_json(self) -> dict[str, Any]:
        """Progress, JSON-ready, without the fields of data_json."""
        values = asdict(self)
        del values["cursor"], values["corpus"], values["base"]
        return values if self.base is None else {**values, "base": self.base.to_json()}

    def data_json(self) -> dict[str, Any]:
        """The data cursor and fingerprints, JSON-ready."""
        return {"cursor": self.cursor, "corpus": self.corpus}

    @classmethod
    def from_json(cls, progress: dict[str, Any], data: dict[str, Any]) -> TrainState:
        """Inverse of to_json and data_json. Keys that this version does not know are ignored.

        Raises Unsound when a field is missing or cannot be what it should be.
        """
        return cls(**progress_of(progress), **data_of(data))


def progress_of(value: dict[str, Any]) -> dict[str, Any]:
    """The fields of to_json, checked. Raises Unsound."""
    counts = {name: whole(value.get(name), name) for name in ("step", "tokens", "updates", "nonfinite")}
    if counts["updates"] > counts["step"]:
        raise Unsound(f"updates is {counts['updates']}, more than the {counts['step']} steps")
    base = Base.from_json(value.get("base"))
    return {**counts, "rng": _rng(value.get("rng")), "best": _best(value.get("best")), "base": base}


def data_of(value: dict[str, Any]) -> dict[str, Any]:
    """The fields of data_json, checked. Raises Unsound."""
    if "cursor" not in value:
        raise Unsound("cursor is missing")
    cursor = value["cursor"]  # its fields the data's order knows; None before the first sample
    if cursor is not None:
        _plain(mapping(cursor, "cursor"))
    return {"cursor": cursor, "corpus": _corpus(value)}


def _plain(value: Any) -> None:
    """Counts and names, in objects and lists."""
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _plain(item)
    elif not isinstance(value, str):
        whole(value, "a count in the cursor")


def _best(value: Any) -> Best | None:
    """None too in a checkpoint of a version that had none."""
    if value is None:
        return None
    found = mapping(value, "best")
    metric: Any = found.get("metric")
    number: Any = found.get("value")
    right = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not right or not isinstance(metric, str):
        raise Unsound(f"best is {shown(value)}, not a metric and its value")
    return Best(metric, float(number), whole(found.get("step"), "best.step"))


def _rng(value: Any) -> str:
    """Base64 text; which bytes it has to hold the device knows."""
    try:
        if isinstance(value, str):
            b64decode(value, validate=True)
            return value
    except (binascii.Error, ValueError):
        pass
    raise Unsound(f"rng is {shown(value)}, not base64")


def _corpus(data: dict[str, Any]) -> dict[str, str]:
    corpus = mapping(data.get("corpus"), "corpus")
    for name, fingerprint in corpus.items():
        if not isinstance(fingerprint, str):
            raise Unsound(f"the fingerprint of {shown(name)} is {shown(fingerprint)}")
    return corpus
