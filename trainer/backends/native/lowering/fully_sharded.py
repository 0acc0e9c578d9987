"""ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) by torch's FSDP2, over all ranks that hold the same weights.

stage  cut over the ranks                    gradients meet                weights are gathered
1      masters and moments                   once a step                   once a step
2      and gradients                         every microbatch              once a step
3      and weights                           every microbatch              every microbatch, for forward and backward

FSDP2's sharded FP32 parameters are the masters; it casts what it gathers, and reduces gradients, as the precision says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


class FullySharded:
    """One model (a pipeline stage, or all of it) whose parameters, already cut by the other axes, FSDP2 cuts again."""

    def __init__(self, model: nn.Module, plan: Plan, stage: int, mesh: DeviceMesh, precision: str) -> None:
        """mesh: the one axis over which FSDP2 cuts, from ``data_mesh``."""
        mixed = precision == "bf16_mixed"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=torch.float32 if mixed else None,
            cast_forward_inputs=False,  # the rotary tables stay FP32
        )
        for layer in model.get_submodule(plan.layers).children():
            fully_shard(layer, mesh=mesh, reshard_after_forward=stage == 3, mp_policy=policy)
        fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)
        register_fsdp_forward_method(model, "logits")
        self.model, self.stage = model, stage
        for module in self._modules():
            module.set_gradient_divide_factor(1.0)  # sums, not means; gloo has no pre-multiplied sum
            module.set_force_sum_reduction_for_comms(True)
            module.set_reshard_after_backward(stage == 3, recurse=False)

    def _modules(self) -> Iterator[FSDPModule]:
        return (module for module in self.model.modules() if isinstance(module, FSDPModule))

    def materialised(self) -> None:
        """To be called when the shards have memory: FSDP2 settles on the tensors that it will keep."""
        root: Any = self.model
        root._get_fsdp_state()._lazy_init()

    def before_backward(self, last: bool) -> None:
        """Whether the gradients of the next backward pass are reduced at once: stage 1 waits for the last."""
        root: Any = self.model
        root.set_requires_gradient_sync(self.stage > 1 or last)
        root.set_is_last_backward(last)

    def collect(self) -> None:
        """Add what the zero bubble's weight step left on the gathered BF16 weights to the FP32 accumulators.

        It calls no hook, so that FSDP2 would add up several microbatches in BF16 before it casts them.
        """
        root: Any = self.model
        for state in root._get_fsdp_state()._state_ctx.all_states:
            if state._fsdp_param_group is not None:
                for parameter in state._fsdp_param_group.fsdp_params:
                    parameter.accumulate_unsharded_grad_if_needed()
                    parameter.to_accumulated_grad_if_needed()

    def reduce(self) -> None:
        """Reduce what the backward passes of a pipeline left: it runs autograd in parts, past FSDP2's own hooks.

        What torch's own pipelining does for an FSDP module (backward_maybe_with_nosync), with private names.
        """
        root: Any = self.model
        root.set_requires_gradient_sync(True)
        root.set_is_last_backward(True)
        root_state = root._get_fsdp_state()
        for state in root_state._state_ctx.all_states:
            if state._fsdp_param_group is not None:
                state._fsdp_param_group.post_backward()
        root_state._root_post_backward_final_callback()

    def forget_gathered(self) -> None:
        """The shards have changed: gathered copies are stale."""
        for module in self._modules():
            module.reshard()


def data_mesh(group: dist.ProcessGroup, device: str) -> DeviceMesh:
    """The ranks of a group as FSDP2 wants them. Made in setup: it reads values, which fake tensors have none of."""
    return DeviceMesh.from_group(group, device)


def local(parameter: nn.Parameter) -> torch.Tensor:
    """This rank's rows of a parameter that FSDP2 has cut, sharing its memory; any other as it is."""
    if not isinstance(parameter, DTensor):
        return parameter
    rows: torch.Tensor = parameter.to_local()
    return rows.detach()


def rows_of(placement: Placement, rank: int, ranks: int) -> Placement:
    """The part of a local tensor that FSDP2 leaves to a rank: rows as torch.chunk cuts them; the last may get none."""
    extent = placement.local_shape[0]
    size = -(-extent // ranks)
    start, stop = min(rank * size, extent), min((rank + 1) * size, extent)
    boxes = tuple(cut for box in placement.boxes if (cut := box.rows(start, stop)) is not None)
    return Placement(placement.shape, (stop - start, *placement.local_shape[1:]), boxes)


def take_gradients(parameters: Mapping[str, nn.Parameter], gradient: Callable[[str], torch.Tensor]) -> None:
    """Move FSDP2's reduced gradients where the optimizer wants them."""
    for name, parameter in parameters.items():
        if isinstance(parameter.grad, DTensor):
            gradient(name).copy_(parameter.grad.to_local())
            parameter.grad = None
