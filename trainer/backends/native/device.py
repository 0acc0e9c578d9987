"""What the native backend computes on: the only place that knows the CPU from anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.backends.common import random_state
from trainer.backends.common.peak import measure_peak_flops
from trainer.batch import Batch
from trainer.run.world import cpu_model

aten = torch.ops.aten


@dataclass(frozen=True)
class Device:
    """What a rank computes on.

    kind: of torch.device, as the current device of that kind. collectives: torch.distributed's name of the libraries
    between ranks; host tensors meet too, so that CUDA would say "cpu:gloo,cuda:nccl". attention: the kernels of
    scaled_dot_product_attention, whose results selective recomputation keeps. send: a batch from the host to it.
    describe: its name, for people. peak: FLOP/s of one rank in a dtype, and where the figure is from. rng_state,
    set_rng_state: of its generator, as text.
    """

    kind: str
    collectives: str
    attention: frozenset[Any]
    send: Callable[[Batch], Batch]
    describe: Callable[[], str]
    peak: Callable[[torch.dtype], tuple[float, str]]
    rng_state: Callable[[], str]
    set_rng_state: Callable[[str], None]


def _measured(dtype: torch.dtype) -> tuple[float, str]:
    name = str(dtype).removeprefix("torch.")
    return measure_peak_flops(dtype), f"measured {name} matrix multiply on this machine"


CPU = Device(
    kind="cpu",
    collectives="gloo",
    attention=frozenset({aten._scaled_dot_product_flash_attention_for_cpu.default}),
    send=lambda batch: batch,
    describe=cpu_model,
    peak=_measured,
    rng_state=random_state.rng_state,
    set_rng_state=random_state.set_rng_state,
)


def device_of_process() -> Device:
    """What this process computes on. Another device is chosen here, where it is there; and made the current one."""
    return CPU
