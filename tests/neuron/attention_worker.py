"""The neuron backend's plain attention beside PyTorch's, on random tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainer.backends.neuron.lowering.attention import plain_attend
from trainer.models.attention import Context, attend, document_mask


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
