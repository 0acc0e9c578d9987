"""What a resume needs besides tensors: plain JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class TrainState:
    """Progress of a run.

    step: optimizer steps finished. tokens: tokens trained on, with or without a target. updates: steps whose update
    was applied. nonfinite: consecutive steps, up to this one, whose update was masked. rng: the backend's random state.
    cursor: the loader's position in the global data order. corpus: fingerprints of the tokenizer and of each source's
    tokens, by name.
    """

    step: int = 0
    tokens: int = 0
    updates: int = 0
    nonfinite: int = 0
    cursor: dict[str, object] | None = None
    rng: str = ""
    corpus: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Progress, JSON-ready, without the fields of data_json."""
        values = asdict(self)
        del values["cursor"], values["corpus"]
        return values

    def data_json(self) -> dict[str, Any]:
        """The data cursor and fingerprints, JSON-ready."""
        return {"cursor": self.cursor, "corpus": self.corpus}

    @classmethod
    def from_json(cls, progress: dict[str, Any], data: dict[str, Any]) -> TrainState:
        """Inverse of to_json and data_json. Keys that this version does not know are ignored."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in {**progress, **data}.items() if key in known})
