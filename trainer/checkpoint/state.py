"""What a resume needs besides tensors: plain JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class TrainState:
    """Progress of a run.

    step: optimizer steps finished. tokens: tokens trained on (targets and not). updates: steps whose update was
    made. nonfinite: steps in a row that were masked. rng: the backend's random state. cursor: the global data order,
    from the loader. corpus: fingerprints of the tokenizer and of each source's tokens, by name.
    """

    step: int = 0
    tokens: int = 0
    updates: int = 0
    nonfinite: int = 0
    cursor: dict[str, object] | None = None
    rng: str = ""
    corpus: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Progress, JSON-ready; what concerns the data is in data_json."""
        values = asdict(self)
        del values["cursor"], values["corpus"]
        return values

    def data_json(self) -> dict[str, Any]:
        """The data's part, JSON-ready."""
        return {"cursor": self.cursor, "corpus": self.corpus}

    @classmethod
    def from_json(cls, progress: dict[str, Any], data: dict[str, Any]) -> TrainState:
        """Inverse of to_json and data_json. A key that this version does not know is left aside."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in {**progress, **data}.items() if key in known})
