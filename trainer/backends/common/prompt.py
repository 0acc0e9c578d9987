"""Tokens so far as a batch of a fixed shape, so that a sample's words all run through one graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.batch import Batch


def prompt_batch(tokens: Sequence[int], length: int) -> tuple[Batch, int]:
    """The last ``length`` tokens as a batch of [1, length], padded on the right; and the place of the last of them.

    Causality hides the padding.
    """
    window = list(tokens[-length:])
    padded = torch.tensor([window + [0] * (length - len(window))])
    positions = torch.arange(length).unsqueeze(0)
    return Batch.undrawn(padded, padded, positions, torch.zeros_like(positions)), len(window) - 1
