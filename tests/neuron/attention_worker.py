"""The neuron backend's attention without a kernel beside PyTorch's, on random tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.backends.common.share import Share
from trainer.backends.neuron.lowering.attention import plain_attend
from trainer.backends.neuron.lowering.blockwise import blockwise_attend
from trainer.models.attention import Context, attend, document_mask
from trainer.rehearsal.memory import LiveBytes
from trainer.trainium import blocks


def differences() -> dict[str, float]:
    """Largest difference of output and gradients to those of the FP32 reference, over the largest value of each."""
    torch.manual_seed(0)
    ids = torch.tensor([[0] * 5 + [1] * 8 + [-1] * 3] * 2)
    blank = torch.zeros(())
    context = Context(blank, blank, document_mask(ids), torch.arange(16).expand(2, -1), ids)
    q, k, v, gradient = (torch.randn(2, heads, 16, 8) for heads in (6, 2, 2, 6))
    reference = _run(attend, q, k, v, gradient, context)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        mine = _run(plain_attend, *(tensor.to(dtype) for tensor in (q, k, v, gradient)), context)
        apart = [(a.float() - b).abs().max() / b.abs().max() for a, b in zip(mine, reference, strict=True)]
        found[str(dtype)] = float(max(apart))
    return found


def _run(
    function: Callable[..., torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gradient: torch.Tensor,
    context: Any,
) -> list[torch.Tensor]:
    """Output, and gradients of the three inputs."""
    inputs = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    result = function(*inputs, context)
    result.backward(gradient)
    return [result.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


def kept() -> dict[str, list[float]]:
    """Bytes that one layer keeps for its backward pass and at most holds while that runs, a score of its one head."""
    return {str(dtype): _kept(dtype) for dtype in (torch.float32, torch.bfloat16)}


def _kept(dtype: torch.dtype, seq: int = 512) -> list[float]:
    ids, blank = torch.zeros(1, seq, dtype=torch.int64), torch.zeros(())
    context = Context(blank, blank, document_mask(ids), torch.arange(seq).unsqueeze(0), ids)
    q, k, v = (torch.randn(1, 1, seq, 1, dtype=dtype).requires_grad_() for _ in range(3))
    with _Counting() as counting:
        counting.memory.ignore([q, k, v, context.mask])
        result = plain_attend(q, k, v, context)
        resting = counting.memory.restart()
        result.sum().backward()
    return [resting / seq**2, counting.memory.peak / seq**2]


def of_a_block() -> dict[str, list[float]]:
    """Bytes that the backward pass of blockwise attention takes, a score of a block; and what wider heads take besides,
    a number of all keys.
    """
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        narrow, wide = (_of_a_block(dtype, width) for width in (1, 65))
        found[str(dtype)] = [narrow / (64 * 2048), (wide - narrow) / (64 * 2048)]
    return found


def _of_a_block(dtype: torch.dtype, width: int) -> int:
    blocks.BLOCK = 64
    ids, blank = torch.zeros(1, 2048, dtype=torch.int64), torch.zeros(())
    visible = Share(0, 1).visible(ids)
    q, k, v = (torch.randn(1, 1, 2048, width, dtype=dtype).requires_grad_() for _ in range(3))
    with _Counting() as counting:
        counting.memory.ignore([q, k, v, *visible[:4]])
        result = blockwise_attend(q, k, v, Context(blank, blank, visible, ids, ids))  # type: ignore[arg-type]
        resting = counting.memory.restart()
        result.sum().backward()
    return counting.memory.peak - resting


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.memory = LiveBytes()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.memory.see(result)
        return result
