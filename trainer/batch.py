"""The unit of data that crosses from the loader to the backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

IGNORED_LABEL = -100
"""A label that is no target: padding, and the first token of the next document. PyTorch's own convention."""


class Batch(NamedTuple):
    """One microbatch. All four are int64 of shape [samples, seq_len].

    tokens: ids that the model reads.
    labels: the id to predict at each position, or IGNORED_LABEL.
    positions: distance from the start of the document within this sample, for the rotary embedding.
    document_ids: which document of the sample a position belongs to; attention stays inside it. Padding is -1.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in one step.

    microbatches: this rank's share, in order.
    target_tokens: number of labels to predict in this rank's share.
    cursor: where the *global* data order stands after this step (JSON-ready); saved with the step.
    """

    microbatches: list[Batch]
    target_tokens: int
    cursor: dict[str, object]
