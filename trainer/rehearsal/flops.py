"""Floating-point operations of the matrix products and of attention; everything else is negligible.

A product of [m, k] and [k, n] is 2 * m * k * n. Attention counts the full square of queries and keys, since its kernel
gets the mask as data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

aten = torch.ops.aten


@dataclass(frozen=True)
class Flops:
    """FLOPs of one rank.

    matmul: products with weights. attention: products of activations. recomputed: computed a second time, by activation
    recomputation or by the attention kernel's backward pass, which recomputes the scores (Dao et al. 2022,
    arXiv:2205.14135, appendix B).
    """

    matmul: int = 0
    attention: int = 0
    recomputed: int = 0

    @property
    def model(self) -> int:
        """What the model's own forward and backward passes take."""
        return self.matmul + self.attention

    @property
    def model_causal(self) -> float:
        """The same, with half of the keys per causal query, as trainer.config.arithmetic.flops_per_token counts."""
        return self.matmul + self.attention / 2


@dataclass(frozen=True)
class Work:
    """FLOPs of one operator. again: those that its kernel recomputes, on top of ``first``."""

    attention: bool
    first: int
    again: int = 0


def _product(left: torch.Tensor, right: torch.Tensor) -> int:
    return 2 * math.prod(left.shape) * right.shape[-1]


def _mm(args: Any) -> Work:
    return Work(False, _product(args[0], args[1]))


def _addmm(args: Any) -> Work:
    return Work(False, _product(args[1], args[2]))


def _linear(args: Any) -> Work:
    return Work(False, 2 * args[0].numel() * args[1].shape[0])


def _bmm(args: Any) -> Work:
    return Work(True, _product(args[0], args[1]))


def _baddbmm(args: Any) -> Work:
    return Work(True, _product(args[1], args[2]))


def _scores(q: torch.Tensor, k: torch.Tensor) -> int:
    """FLOPs over the full square [batch, heads, queries, keys], for one element of the head size."""
    return 2 * math.prod(q.shape[:-1]) * k.shape[-2]


def _attention(args: Any) -> Work:
    q, k, v = args[:3]
    return Work(True, _scores(q, k) * (q.shape[-1] + v.shape[-1]))


def _attention_backward(args: Any) -> Work:
    _, q, k, v = args[:4]
    square = _scores(q, k)
    return Work(True, square * 2 * (q.shape[-1] + v.shape[-1]), square * q.shape[-1])


_FORMULAS: dict[Any, Callable[[Any], Work]] = {
    aten.mm: _mm,
    aten.addmm: _addmm,
    aten.addmm_: _addmm,
    aten.linear: _linear,
    aten.bmm: _bmm,
    aten.baddbmm: _baddbmm,
    aten.baddbmm_: _baddbmm,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
_UNKNOWN = ("convolution", "scaled_dot_product", "flash_attention", "_scaled_mm", "matmul")


class FlopCounter:
    """Sums the FLOPs of operators. recomputing: tells whether the current operators are a recomputation."""

    def __init__(self, recomputing: Callable[[], bool]) -> None:
        self.total = Flops()
        self._recomputing = recomputing

    def recorder(self, operator: Any) -> Callable[[Any, Any], None] | None:
        """What to call with the arguments and the result of an operator; None for one that is not counted.

        Raises AssertionError for an expensive operator without a formula, which would otherwise go uncounted.
        """
        formula = _FORMULAS.get(operator.overloadpacket)
        if formula is None:
            name = str(operator.overloadpacket)
            assert not any(word in name for word in _UNKNOWN), f"{name} is not counted"
            return None

        def record(args: Any, result: Any) -> None:
            self._count(formula(args))

        return record

    def _count(self, work: Work) -> None:
        total = self.total
        if self._recomputing():
            self.total = replace(total, recomputed=total.recomputed + work.first + work.again)
        elif work.attention:
            attention, again = total.attention + work.first, total.recomputed + work.again
            self.total = replace(total, attention=attention, recomputed=again)
        else:
            self.total = replace(total, matmul=total.matmul + work.first)

    def take(self) -> Flops:
        """Return the total and reset it."""
        taken, self.total = self.total, Flops()
        return taken
