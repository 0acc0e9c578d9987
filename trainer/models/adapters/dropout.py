"""Dropout of what enters a linear: a tensor-parallel rank may have some of its features only."""

from __future__ import annotations

import torch

from trainer.models.dropout import Dropout


class InputDropout(Dropout):
    """As trainer.models.dropout.Dropout, for an activation whose last dim a lowering has cut.

    runs: (first feature, how many) of the uncut activation that this rank has, in its order; what is padding counts as
    features behind the last.
    """

    def __init__(self, p: float, size: int) -> None:
        super().__init__(p, size)
        self.runs: tuple[tuple[int, int], ...] = ((0, size),)

    def cut(self, runs: tuple[tuple[int, int], ...]) -> None:
        """From now on activations have these features only."""
        self.runs, self.size = runs, sum(count for _, count in runs)

    def features(self, device: torch.device) -> torch.Tensor:
        """int32 [size]: numbers of the features in the uncut activation."""
        parts = [torch.arange(first, first + count, dtype=torch.int32, device=device) for first, count in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
