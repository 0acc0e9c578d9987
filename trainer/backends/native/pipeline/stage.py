"""One stage of a pipeline as torch's schedules want it, without what torch 2.9 gets wrong or wastes.

What is overridden here is private to ``torch.distributed.pipelining`` and may change; tests/unit/test_pipeline_stage.py
and tests/distributed/test_pipeline.py watch each point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.stage import InputInfo, _RecvInfo, _RootArgPlaceholder


class StageModule(nn.Module):
    """A stage's module for torch: one tensor in, one contiguous tensor out.

    A module of its own also where the stage's is an FSDPModule: torch would drive FSDP2 by itself if it saw one.
    scale: what the loss is multiplied with.
    """

    def __init__(self, module: nn.Module, last: bool) -> None:
        super().__init__()
        self.module, self.last = module, last
        self.scale = 1.0

    def forward(
        self, x: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor
    ) -> torch.Tensor:
        """Tokens or activations -> activations, or on the last stage FP32 [1]: the summed loss times the scale."""
        out, _ = self.module(x, labels, positions, document_ids)
        if self.last:
            # One dim, because torch concatenates the microbatches' outputs; a new tensor and no view, because it
            # detaches them in place to free the graph, and leaves views alone.
            return torch.stack((out * self.scale,))
        return out.contiguous()


class Stage(PipelineStage):
    """torch's PipelineStage with buffers that live from a receive to the microbatch's backward.

    torch allocates a buffer for each microbatch, in each direction, and keeps them (and their gradients) for ever; so
    memory would grow with the number of microbatches, which 1F1B is there to avoid.
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

        after_weights: called after each computation of weight gradients apart from the inputs' (zero bubble). torch
        adds those to ``.grad`` without autograd's hooks.
        """
        super().__init__(module, index, stages, device, input_args=source, output_args=result, group=group)
        self._after_weights = after_weights

    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        """None. torch's own greets the neighbours with an int64 where they receive a float32: gloo aborts."""
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
        """What the stage reads, without memory: a meta tensor, which a computation that came too soon trips over."""
        assert self.inputs_meta is not None
        (meta,) = self.inputs_meta
        return (_RootArgPlaceholder(meta) if self.is_first else _RecvInfo("input", self.stage_index - 1, meta),)

    def _allocate(self, meta: torch.Tensor) -> torch.Tensor:
        """The one place where buffers are made."""
        return torch.empty(meta.shape, dtype=meta.dtype, device=self.device)

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Make the buffer as the receive is posted."""
        for info in self.args_recv_info[fwd_chunk_id]:
            if isinstance(info, _RecvInfo):
                info.buffer = self._allocate(info.buffer).requires_grad_(self.has_backward)
        return super().get_fwd_recv_ops(fwd_chunk_id)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Make the buffer as the receive is posted."""
        if self.has_backward:
            for info in self.grad_recv_info[bwd_chunk_id]:
                info.buffer = self._allocate(info.buffer)
        return super().get_bwd_recv_ops(bwd_chunk_id)

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        """Let go of the microbatch's buffers; autograd keeps what the weights' gradients still need."""
        # torch lets go of the outputs' graph, and a node of Python's is owned by the nodes that lead to it alone.
        roots = [tensor.grad_fn for tensor in self.fwd_cache[bwd_chunk_id][0]]
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        self.args_recv_info[bwd_chunk_id] = self._input()
        self.grad_recv_info[bwd_chunk_id] = self._create_grad_recv_info(self.act_send_info)
        if not full_backward and not self.is_first:
            # torch keeps inputs, outputs and both their gradients until the weights' turn, and then needs only this.
            groups = self._settle_fused(self.backward_state[bwd_chunk_id][1])
            self.backward_state[bwd_chunk_id] = ((), groups, (), None)
        del roots

    def _settle_fused(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Accumulate at once the gradients of weights that a Python autograd.Function reads; the other groups remain.

        torch would start from such a function later, when the graph that it lives in is gone. The head is such a
        weight: its gradient was made together with the loss, so nothing is left to do later, and a [vocab, hidden]
        tensor need not wait.
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
        """Tell the optimizer wrapper that gradients appeared without a hook."""
        super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        del self.dw_runner[bwd_chunk_id]
        self._after_weights()

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """gloo sends contiguous tensors only, and autograd makes no promise."""
        gradients = self.bwd_cache.get(bwd_chunk_id, ())
        if self.is_first:
            self.bwd_cache.pop(bwd_chunk_id, None)
        else:
            self.bwd_cache[bwd_chunk_id] = tuple(None if g is None else g.contiguous() for g in gradients)
        return super().get_bwd_send_ops(bwd_chunk_id)

    def clear_runtime_states(self) -> None:
        """Everything of a step, also of one that failed half-way."""
        super().clear_runtime_states()
        self.bwd_cache.clear()
        self.backward_state.clear()
        self.dw_runner.clear()
        for index in self.args_recv_info:
            self.args_recv_info[index] = self._input()
        for index in self.grad_recv_info:
            self.grad_recv_info[index] = self._create_grad_recv_info(self.act_send_info)
