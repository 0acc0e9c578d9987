"""Keys of `precision`: number formats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrecisionConfig:
    mode: str = "bf16_mixed"
    """fp32 | bf16_mixed (BF16 compute, FP32 masters, accumulation and reduction) | bf16 (all BF16)."""
    cpu_fallback: str | None = "fp32"
    """Mode to use where the CPU has no BF16 instructions; null to use `mode` all the same."""
