"""What the native backend runs on."""

from __future__ import annotations

import platform

import torch
import torch.distributed as dist

from trainer.backends.base import Facts
from trainer.backends.native.device import Device


def gather_facts(device: Device, dtype: torch.dtype, distributed: bool) -> Facts:
    """The device, threads and the peak, summed over the ranks. Collective."""
    flops, source = device.peak(dtype)
    peak = torch.tensor(flops, dtype=torch.float64)
    if distributed:
        dist.all_reduce(peak)
    return Facts(
        device=device.describe(),
        peak_flops=peak.item(),
        peak_source=source,
        threads=torch.get_num_threads(),
        versions={"torch": torch.__version__, "python": platform.python_version()},
    )
