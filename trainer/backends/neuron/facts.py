"""What the neuron backend runs on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch
import torch_xla.runtime as xr

from trainer.backends.base import Facts
from trainer.backends.common.peak import measure_peak_flops
from trainer.run.world import cpu_model

CORE_FLOPS = 95e12
"""BF16 FLOP/s of a NeuronCore-v2: half of a trn1 chip's 190 TFLOP/s (AWS Neuron docs, trn1 architecture)."""
FP32_CORE_FLOPS = 23.75e12
"""FP32: half of a chip's 47.5 TFLOP/s (same source)."""
PACKAGES = ("torch", "torch-xla", "torch-neuronx", "neuronx-cc", "neuronx-distributed", "libneuronxla")


def gather_facts(world: int, dtype: torch.dtype) -> Facts:
    """Device, versions and the peak of ``world`` ranks."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for package in PACKAGES[1:]:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if xr.device_type() == "NEURON":
        peak = CORE_FLOPS if dtype == torch.bfloat16 else FP32_CORE_FLOPS
        source = f"{world} NeuronCores-v2 x {peak / 1e12:g} TFLOP/s (AWS's figure for the chip, halved; not measured)"
        return Facts("NeuronCore-v2", world * peak, source, torch.get_num_threads(), versions)
    peak = measure_peak_flops(dtype) * world
    return Facts(
        f"XLA on {cpu_model()}",
        peak,
        "measured by PyTorch's matrix multiply on this machine",
        torch.get_num_threads(),
        versions,
    )
