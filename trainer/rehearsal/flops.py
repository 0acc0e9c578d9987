"""Floating-point operations of the matrix products and of attention; everything else is small beside them.

A product of [m, k] and [k, n] is 2 * m * k * n. Attention is counted as its kernel is called: over the full square of
queries and keys, since its mask is data to it.
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

    matmul: products with weights. attention: products of activations. recomputed: what is worked out a second time,
    by activation recompute, or in the attention kernel's backward pass, which makes the scores again (Dao et al. 2022,
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
        """The same, where a causal query sees half of the keys: as trainer.config.arithmetic.flops_per_token counts."""
        return self.matmul + self.attention / 2


@dataclass(frozen=True)
class Work:
    """FLOPs of one operator. again: the part that is recomputed inside the kernel."""

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
    """A product over the full square for each of the head size's elements: [batch, heads, queries, keys]."""
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
    """Adds up operators. recomputing: whether what runs now runs a second time."""

    def __init__(self, recomputing: Callable[[], bool]) -> None:
        self.total = Flops()
        self._recomputing = recomputing

    def recorder(self, operator: Any) -> Callable[[Any, Any], None] | None:
        """What to call with the arguments and the result of an operator; None for one that is not counted.

        An operator that must be expensive but is not known here must not go uncounted: AssertionError.
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
        """The total, and begin anew."""
        taken, self.total = self.total, Flops()
        return taken
