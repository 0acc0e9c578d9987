"""BF16 matrices as FBGEMM's packed FP16 ones, for CPUs that have no BF16 instructions.

FBGEMM multiplies FP32 activations by FP16 weights at the speed of memory, for one row as for several. FP16 has the
digits of BF16 and not its range, so a matrix is scaled by a power of 2 until its largest value is near FP16's own: a
value is then exact unless it is 2**32 times smaller than the largest, and off by 2**-39 of that at most. Sums are FP32.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from trainer.run.world import cpu_has_bf16

TOP = 15
"""The largest value of a scaled matrix is below 2**15; FP16 ends at 65504."""


def can_pack() -> bool:
    """Whether packing pays: torch has FBGEMM (x86 with AVX2), and the CPU no instructions for BF16."""
    there = "fbgemm" in torch.backends.quantized.supported_engines
    return there and hasattr(torch.ops.quantized, "linear_prepack_fp16") and not cpu_has_bf16()


def pack(linear: nn.Linear, keep: bool = False) -> None:
    """Make a BF16 linear one of FP32 activations, in place. keep: its weight too, which it needs no more itself."""
    weight, bias = linear.weight.data.float(), linear.bias
    exponent = _exponent(weight)
    engine, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
    try:
        # It takes the bias as it is and adds it to the product.
        scaled = weight if exponent == 0 else torch.ldexp(weight, torch.tensor(exponent))
        packed = torch.ops.quantized.linear_prepack_fp16(scaled, None if bias is None else bias.data.float())
    finally:
        torch.backends.quantized.engine = engine
    scale = None if exponent == 0 else 2.0**-exponent
    linear.forward = partial(_linear, packed, scale)  # type: ignore[method-assign]
    if not keep:
        linear.weight.data = linear.weight.data.new_empty(0)


def _exponent(weight: torch.Tensor) -> int:
    """0 where FP16 has the values as they are."""
    largest = float(weight.abs().max())
    if torch.equal(weight.half().float(), weight) or not math.isfinite(largest):
        return 0
    return TOP - math.frexp(largest)[1]


def _linear(packed: Any, scale: float | None, x: torch.Tensor) -> torch.Tensor:
    """F.linear: FP32 [..., in] -> FP32 [..., out]. scale: undoes the weight's, exactly."""
    product: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x if scale is None else x * scale, packed)
    return product
