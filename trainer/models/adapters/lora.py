"""LoRA (Hu et al. 2021, arXiv:2106.09685) on a linear: W x + s B A x, and with its magnitudes DoRA.

The base's parameters keep their names; beside ``q_proj.weight`` stand ``q_proj.lora_A`` and ``q_proj.lora_B``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from trainer.models.adapters.dropout import InputDropout


@dataclass(frozen=True)
class Lora:
    """What the adapters of a model have in common. scale: s, of what they add."""

    rank: int
    scale: float
    dropout: float = 0.0
    dora: bool = False


def total(squares: torch.Tensor) -> torch.Tensor:
    """Where a rank holds the whole weight, its sums of squares are whole."""
    return squares


def over_lengths(magnitudes: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Magnitudes over the roots of sums of squares, FP32. What is zero is padding, and stays so: 0 / 0 would not."""
    lengths = squares.sqrt()
    return magnitudes / torch.where(lengths > 0, lengths, torch.ones_like(lengths)).to(magnitudes.dtype)


class LoraLinear(nn.Linear):
    """A linear and its adapter.

    lora_A: [rank, in]; lora_B: [out, rank]; lora_magnitude_vector: [out], with DoRA (Liu et al. 2024, arXiv:2402.09353)
    the length of each output's weights: m (W + s B A) / |W + s B A|, where no gradient flows through the length below.
    A lowering that cuts dim 1 replaces ``total`` by a sum over the ranks, and sets ``bias_later`` where it adds the
    bias itself. keys: of the samples at hand, for dropout.
    """

    total: Callable[[torch.Tensor], torch.Tensor]
    lora_magnitude_vector: nn.Parameter | None

    def __init__(self, linear: nn.Linear, lora: Lora) -> None:
        """Takes over the linear's parameters."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.dropout = lora.scale, InputDropout(lora.dropout, linear.in_features)
        self.lora_A = nn.Parameter(linear.weight.new_empty(lora.rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_empty(linear.out_features, lora.rank))
        magnitudes = nn.Parameter(linear.weight.new_empty(linear.out_features)) if lora.dora else None
        self.register_parameter("lora_magnitude_vector", magnitudes)
        self.total, self.bias_later = total, False
        self.keys: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        out = self.product(x)
        return out if self.bias is None or self.bias_later else out + self.bias

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Without the bias; where dim 1 is cut, this rank's part of a sum."""
        dropped = self.dropout(x, self.keys)
        added = F.linear(F.linear(dropped, self.lora_A) * self.scale, self.lora_B)
        if self.lora_magnitude_vector is None:
            # One kernel for the large product and the sum; and it comes last: a recomputation, which ends with the last
            # tensor that the backward pass keeps, spares it.
            rows = torch.addmm(added.flatten(0, -2), x.flatten(0, -2), self.weight.t())
            return rows.view_as(added)
        share, base = self.share(), F.linear(x, self.weight)
        if dropped is x:
            return share * (base + added)
        return base + (share - 1) * F.linear(dropped, self.weight) + share * added

    def share(self) -> torch.Tensor:
        """[out]: the magnitudes over the lengths of the rows of W + s B A; only the magnitudes have a gradient."""
        assert self.lora_magnitude_vector is not None
        with torch.no_grad():
            squares = self.total(self.merged().float().square().sum(dim=1))
        return over_lengths(self.lora_magnitude_vector, squares)

    def merged(self) -> torch.Tensor:
        """W + s B A, [out, in]."""
        return self.weight + self.scale * (self.lora_B @ self.lora_A)

    def factors(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """For a loss that takes the head's weight: the weight, and where LoRA adds to the logits, s A x and B."""
        if self.lora_magnitude_vector is not None:
            return self.share().unsqueeze(1) * self.merged(), None, None
        return self.weight, F.linear(self.dropout(x, self.keys), self.lora_A) * self.scale, self.lora_B
