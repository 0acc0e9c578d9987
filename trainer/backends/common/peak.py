"""How fast this machine multiplies matrices: the denominator of MFU on a CPU, measured rather than looked up."""

from __future__ import annotations

import time

import torch


def measure_peak_flops(dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """FLOP/s of this process: the best of repeated square matrix multiplications in ``dtype``."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)  # the first call pays for set-up
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
