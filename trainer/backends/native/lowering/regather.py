"""Gathered activations that are not kept for the backward pass: it gathers them again.

Under sequence parallelism a block's input is gathered from all ranks for the block's own matrices. Kept, it would undo
what the cut saves; the parts are kept instead (Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2), as
neuronx-distributed does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

Gather = Callable[[torch.Tensor], torch.Tensor]


class _Gathered:
    """A gathered tensor's stand-in among what autograd keeps: gathered once for all its uses in a backward pass."""

    def __init__(self, part: torch.Tensor, whole: torch.Tensor, again: Gather) -> None:
        self._part, self._again = part.detach(), again
        self._storage, self._size = whole.untyped_storage()._cdata, whole.numel()
        self._whole: torch.Tensor | None = None
        self._uses = 0

    def pack(self, tensor: torch.Tensor) -> Any:
        """The tensor, or where it is all of the gathered one, its shape."""
        if tensor.untyped_storage()._cdata != self._storage or tensor.numel() != self._size:
            return tensor
        self._uses += 1
        return tensor.shape

    def unpack(self, kept: Any) -> torch.Tensor:
        """Gather for the first use, let go after the last."""
        if isinstance(kept, torch.Tensor):
            return kept
        whole = self._again(self._part) if self._whole is None else self._whole
        self._uses -= 1
        self._whole = whole if self._uses else None
        return whole.view(kept)


def gathering(block: nn.Module, gather: Gather, again: Gather) -> None:
    """Make a block gather its first argument, in place. gather: with gradient; again: without."""
    forward = block.forward

    def gathered_forward(x: torch.Tensor, *rest: Any) -> Any:
        whole = gather(x)
        stand_in = _Gathered(x, whole, again)
        with saved_tensors_hooks(stand_in.pack, stand_in.unpack):
            return forward(whole, *rest)

    block.forward = gathered_forward
