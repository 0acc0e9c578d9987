"""Keys of `precision`: number formats."""

from __future__ import annotations

from dataclasses import dataclass

HALF = "train in BF16 (precision=bf16_mixed), and give --dtype float16 to scripts/export_hf.py"
"""For who asks for fp16: its range wants a loss scale, which BF16 does without, on Trainium too."""


@dataclass(frozen=True)
class PrecisionConfig:
    mode: str = "bf16_mixed"
    """fp32 | bf16_mixed (BF16 compute, FP32 masters, accumulation and reduction) | bf16 (all BF16)."""
    cpu_fallback: str | None = "fp32"
    """Mode to use where the CPU has no BF16 instructions; null to use `mode` all the same."""
