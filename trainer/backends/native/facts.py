"""What the native backend runs on."""

from __future__ import annotations

import platform

import torch
import torch.distributed as dist

from trainer.backends.base import Facts
from trainer.backends.common.peak import measure_peak_flops
from trainer.run.world import cpu_model


def gather_facts(dtype: torch.dtype, distributed: bool) -> Facts:
    """CPU, threads and the measured peak, summed over the ranks. Collective."""
    peak = torch.tensor(measure_peak_flops(dtype), dtype=torch.float64)
    if distributed:
        dist.all_reduce(peak)
    return Facts(
        device=cpu_model(),
        peak_flops=peak.item(),
        peak_source=f"measured {str(dtype).removeprefix('torch.')} matrix multiply on this machine",
        threads=torch.get_num_threads(),
        versions={"torch": torch.__version__, "python": platform.python_version()},
    )
