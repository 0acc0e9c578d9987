"""What a resume needs besides tensors: plain JSON."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass
class TrainState:
    """Progress of a run.

    step: optimizer steps finished. tokens: tokens trained on (targets and not). updates: steps whose update was
    made. nonfinite: steps in a row that were masked. cursor: the global data order, from the loader. rng: PyTorch's
    generator, which nothing in the step uses but a user's own model may.
    """

    step: int = 0
    tokens: int = 0
    updates: int = 0
    nonfinite: int = 0
    cursor: dict[str, object] | None = None
    rng: str = ""

    def capture_rng(self) -> None:
        """Remember the generator's state."""
        self.rng = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()

    def restore_rng(self) -> None:
        """Put the generator back."""
        if self.rng:
            torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(self.rng)), dtype=torch.uint8))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; the cursor is stored apart, in data.json."""
        values = asdict(self)
        del values["cursor"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], cursor: dict[str, object] | None) -> TrainState:
        """Inverse of to_json."""
        return cls(**values, cursor=cursor)
