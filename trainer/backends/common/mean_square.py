"""The mean square over all heads, where each tensor-parallel rank has some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.parallel.placement import Placement


@dataclass(frozen=True)
class MeanSquare:
    """In the place of trainer.models.norm.mean_square.

    counted: where the first copies of this rank's heads lie; neither padding nor further copies count. size: of all
    heads. total: a sum over the ranks, forward and backward: every rank divides by it.
    """

    counted: tuple[slice, ...]
    size: int
    total: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def over(cls, weight: Placement, total: Callable[[torch.Tensor], torch.Tensor]) -> MeanSquare:
        """weight: placement of the norm's weight, which is cut as its input is."""
        return cls(tuple(box.local[0] for box in weight.boxes if box.copy == 0), weight.shape[0], total)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """FP32 [..., heads here * head_dim] -> [..., 1]."""
        squares = x.square()
        # A rank that counts nothing hands in 0, as a function of its input: backward, too, the others wait for it.
        parts = [squares[..., mine].sum(-1, keepdim=True) for mine in self.counted] or [squares[..., :1] * 0]
        here = sum(parts[1:], parts[0])
        return self.total(here) / self.size
