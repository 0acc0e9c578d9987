"""What the native backend computes on: the only place that knows the CPU from anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.backends.common import random_state
from trainer.backends.common.peak import measure_peak_flops
from trainer.run.world import cpu_model

aten = torch.ops.aten


@dataclass(frozen=True)
class Device:
    """What a rank computes on.

    kind: of torch.device. collectives: torch.distributed's name of the library between ranks. attention: the kernels of
    scaled_dot_product_attention, whose results selective recomputation keeps. describe: its name, for people. peak:
    FLOP/s of one rank in a dtype, and where the figure is from. rng_state, set_rng_state: of its generator, as text.
    """

    kind: str
    collectives: str
    attention: frozenset[Any]
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
    describe=cpu_model,
    peak=_measured,
    rng_state=random_state.rng_state,
    set_rng_state=random_state.set_rng_state,
)
