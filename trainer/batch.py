"""The unit of data that crosses from the loader to the backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

IGNORED_LABEL = -100
"""A label that is no target: padding, and the first token of the next document. PyTorch's own convention."""


NO_DRAW = -1
"""A key with which nothing is dropped: evaluation, samples, padding."""


class Batch(NamedTuple):
    """One microbatch. All five are int64 of shape [samples, seq_len].

    tokens: ids that the model reads.
    labels: the id to predict at each position, or IGNORED_LABEL.
    positions: distance from the start of the document within this sample, for the rotary embedding.
    document_ids: which document of the sample a position belongs to; attention stays inside it. Padding is -1.
    keys: what dropout draws by: a hash of (seed, number of the sample in the whole run, index in the sample), 31 bits,
    or NO_DRAW. The number of the sample says the step too. On a rank that has only some positions between blocks
    (context and sequence parallelism), the keys of those.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor
    keys: torch.Tensor

    @classmethod
    def undrawn(
        cls, tokens: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor
    ) -> Batch:
        """A batch with which nothing is dropped."""
        return cls(tokens, labels, positions, document_ids, torch.full_like(tokens, NO_DRAW))


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in one step.

    microbatches: this rank's share, in order.
    target_tokens: number of labels to predict in this rank's share.
    cursor: where the *global* data order stands after this step (JSON-ready); saved with the step.
    epochs: how often each source has been seen by then, by name.
    """

    microbatches: list[Batch]
    target_tokens: int
    cursor: dict[str, object]
    epochs: dict[str, float] = field(default_factory=dict)
