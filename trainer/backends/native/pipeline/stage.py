"""One pipeline stage for torch's schedules, without torch 2.9's errors and wasted memory.

The overridden methods are private to ``torch.distributed.pipelining`` and may change; tests/unit/test_pipeline_stage.py
and tests/distributed/test_pipeline.py test each override.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.stage import InputInfo, _RecvInfo, _RootArgPlaceholder

from trainer.backends.base import GoOn, always

Blank = Callable[[torch.Tensor], torch.Tensor]


class StageModule(nn.Module):
    """A stage's module for torch: one tensor in, one contiguous tensor out.

    It also hides an FSDPModule: torch would drive FSDP2 itself if it saw one. dry: the step was ended, and what is left
    of it is zeros.
    """

    def __init__(self, module: nn.Module, last: bool, blank: Blank | None = None) -> None:
        """blank: activations of zeros for tokens; needed where a step may be ended early."""
        super().__init__()
        self.module, self.last, self._blank = module, last, blank
        self.begin(1.0, count(), always)

    def begin(self, scale: float, numbers: Iterator[int], go_on: GoOn) -> None:
        """Before a step. scale: factor of the loss. numbers: count the forward passes of all this rank's stages."""
        self.scale, self._numbers, self._go_on, self.dry = scale, numbers, go_on, False

    def forward(self, x: torch.Tensor, **fields: torch.Tensor) -> torch.Tensor:
        """Tokens or activations, and the other fields of a Batch -> activations, or on the last stage FP32 [1]: the
        summed loss times the scale.
        """
        self.dry = self.dry or not self._go_on(next(self._numbers))
        if self.dry:
            return self._nothing(x)
        out, _ = self.module(x, **fields)
        if not out.requires_grad and torch.is_grad_enabled():
            # Nothing is trained up to here: the gradient that the next stage sends ends here, and torch wants a place.
            out = out.detach().requires_grad_()
        if self.last:
            # One dim, because torch concatenates the microbatches' outputs; a new tensor, because torch frees the graph
            # by detaching outputs in place, except views.
            return torch.stack((out * self.scale,))
        return out.contiguous()

    def _nothing(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros of the output's shape, through which a gradient of zeros flows to the input."""
        if self.last:
            return (x.float().sum() * 0.0).reshape(1).requires_grad_()
        if x.is_floating_point():
            return x * 0.0
        assert self._blank is not None
        return self._blank(x).requires_grad_()


class Stage(PipelineStage):
    """torch's PipelineStage, with buffers allocated at a receive and freed after the microbatch's backward.

    torch allocates a buffer for each microbatch, in each direction, and never frees them or their gradients: memory
    would grow with the number of microbatches, which 1F1B is meant to avoid.
    """

    def __init__(
        self,
        module: StageModule,
        index: int,
        stages: int,
        group: dist.ProcessGroup,
        source: torch.Tensor,
        result: torch.Tensor,
        after_weights: Callable[[], None],
        device: torch.device,
    ) -> None:
        """source, result: meta tensors with shape and dtype of what the module takes and gives.

        after_weights: called after each backward for weight gradients alone (zero bubble), which torch adds to
        ``.grad`` without autograd's hooks.
        """
        super().__init__(module, index, stages, device, input_args=source, output_args=result, group=group)
        self._after_weights = after_weights

    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        """No first exchange: torch sends an int64 that its neighbours receive as a float32, and gloo aborts."""
        return []

    def _prepare_forward_infra(
        self, num_microbatches: int, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, ...]:
        self.act_send_info = {0: [] if self.is_last else [self.stage_index + 1]}
        self.args_recv_info = {index: self._input() for index in range(num_microbatches)}
        return ()

    def _create_grad_recv_info(self, act_send_info: dict[int, list[int]]) -> tuple[_RecvInfo, ...]:
        return () if self.is_last else (_RecvInfo("gradient", self.stage_index + 1, self.get_outputs_meta()[0]),)

    def _input(self) -> tuple[InputInfo, ...]:
        """The stage's input without memory: a meta tensor, with which a computation before the receive fails."""
        assert self.inputs_meta is not None
        (meta,) = self.inputs_meta
        return (_RootArgPlaceholder(meta) if self.is_first else _RecvInfo("input", self.stage_index - 1, meta),)

    def _allocate(self, meta: torch.Tensor) -> torch.Tensor:
        """Allocate a buffer; all are allocated here."""
        return torch.empty(meta.shape, dtype=meta.dtype, device=self.device)

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Allocate the buffer when the receive is posted."""
        for info in self.args_recv_info[fwd_chunk_id]:
            if isinstance(info, _RecvInfo):
                info.buffer = self._allocate(info.buffer).requires_grad_(self.has_backward)
        return super().get_fwd_recv_ops(fwd_chunk_id)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Allocate the buffer when the receive is posted."""
        if self.has_backward:
            for info in self.grad_recv_info[bwd_chunk_id]:
                info.buffer = self._allocate(info.buffer)
        return super().get_bwd_recv_ops(bwd_chunk_id)

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        """Free the microbatch's buffers after its backward; autograd keeps what weight gradients still need."""
        # torch frees the outputs' graph, and only the nodes that lead to a Python node keep it alive.
        roots = [tensor.grad_fn for tensor in self.fwd_cache[bwd_chunk_id][0]]
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        self.args_recv_info[bwd_chunk_id] = self._input()
        self.grad_recv_info[bwd_chunk_id] = self._create_grad_recv_info(self.act_send_info)
        if not full_backward and not self.is_first:
            # torch keeps inputs, outputs and their gradients for the weight gradients, which need only the groups.
            groups = self._settle_fused(self.backward_state[bwd_chunk_id][1])
            self.backward_state[bwd_chunk_id] = ((), groups, (), None)
        del roots

    def _settle_fused(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Accumulate now the gradients of weights that a Python autograd.Function reads; return the other groups.

        torch would start from such a function later, after its graph is freed. The head is such a weight: its gradient
        was computed with the loss, so there is nothing to compute later, and a [vocab, hidden] tensor is freed now.
        """
        later = []
        for group in groups:
            if not any(isinstance(node, BackwardCFunction) for node in group["intermediates"]):
                later.append(group)
                continue
            starts = [
                (GradientEdge(node, output), gradient)
                for node, gradients in zip(group["intermediates"], group["grads"], strict=True)
                for output, gradient in enumerate(gradients)
                if gradient is not None
            ]
            weights = [node.variable for node in group["params"]]
            torch.autograd.backward([edge for edge, _ in starts], [given for _, given in starts], inputs=weights)
            group.clear()  # breaks the cycle between the group and the hooks of its nodes, as torch does
        return later

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        """Call after_weights: the optimizer wrapper sees no hook for these gradients."""
        super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        del self.dw_runner[bwd_chunk_id]
        self._after_weights()

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Make gradients contiguous: gloo sends no others, and autograd does not guarantee it."""
        gradients = self.bwd_cache.get(bwd_chunk_id, ())
        if self.is_first:
            self.bwd_cache.pop(bwd_chunk_id, None)
        else:
            self.bwd_cache[bwd_chunk_id] = tuple(None if g is None else g.contiguous() for g in gradients)
        return super().get_bwd_send_ops(bwd_chunk_id)

    def clear_runtime_states(self) -> None:
        """Drop all state of a step, also of one that failed."""
        super().clear_runtime_states()
        self.bwd_cache.clear()
        self.backward_state.clear()
        self.dw_runner.clear()
        for index in self.args_recv_info:
            self.args_recv_info[index] = self._input()
        for index in self.grad_recv_info:
            self.grad_recv_info[index] = self._create_grad_recv_info(self.act_send_info)
