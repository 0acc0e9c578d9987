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
    """Replace a BF16 linear's product, in place. keep: its weight too, which nothing else needs otherwise."""
    weight, bias = linear.weight.data.float(), linear.bias
    largest = float(weight.abs().max())
    if not math.isfinite(largest) or weight.shape[0] == 0:
        return
    exponent = TOP - math.frexp(largest)[1] if largest else 0
    scaled = torch.ldexp(weight, torch.tensor(exponent))
    engine, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
    try:
        # It takes the bias as it is and adds it to the product.
        packed = torch.ops.quantized.linear_prepack_fp16(scaled, None if bias is None else bias.data.float())
    finally:
        torch.backends.quantized.engine = engine
    linear.forward = partial(_linear, packed, torch.tensor([2.0**-exponent]))  # type: ignore[method-assign]
    if not keep:
        linear.weight.data = linear.weight.data.new_empty(0)


def _linear(packed: Any, scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """F.linear: BF16 [..., in] -> BF16 [..., out]. scale: FP32 [1]; undoes the weight's, exactly."""
    product: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x * scale, packed)
    return product.to(x.dtype)
