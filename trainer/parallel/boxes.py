"""Where a tensor's values live: boxes of the global tensor. Initialisation and checkpoints know nothing else.

A box is general enough for replicas, shards along any dims, padding (never inside a box), permuted heads and
several parameters fused in one local tensor (one box each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


Regions = Mapping[str, Sequence[tuple[slice, ...]]]
"""Parts of this rank's tensors, by canonical name."""


@dataclass(frozen=True)
class Box:
    """A rectangular part of the global tensor ``name`` and the part of the local tensor that holds it."""

    name: str
    """Canonical name: that of Hugging Face's Llama where it exists."""
    shape: tuple[int, ...]
    """Shape of the global tensor, without padding."""
    offsets: tuple[int, ...]
    """First index of the box in each dim of the global tensor."""
    sizes: tuple[int, ...]
    """Extent of the box in each dim."""
    local: tuple[slice, ...]
    """The same extent inside the local tensor."""
    copy: int = 0
    """Which replica among the ranks that share one copy of the model. Copy 0 counts in the global gradient norm."""
    writer: bool = True
    """Among all ranks that hold this box, the one that saves it."""

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The box's values: a view of the local tensor, of shape ``sizes``."""
        return tensor[self.local] if self.local else tensor

    def rows(self, start: int, stop: int) -> Box | None:
        """What a slice [start, stop) of the local tensor's dim 0 holds of the box, as it lies there; or nothing."""
        rows = self.local[0]
        low, high = max(rows.start, start), min(rows.stop, stop)
        if low >= high:
            return None
        return replace(
            self,
            offsets=(self.offsets[0] + low - rows.start, *self.offsets[1:]),
            sizes=(high - low, *self.sizes[1:]),
            local=(slice(low - start, high - start), *self.local[1:]),
        )


def whole_box(name: str, shape: tuple[int, ...], copy: int = 0) -> Box:
    """The box of a tensor that this rank holds completely."""
    return Box(name, shape, (0,) * len(shape), shape, tuple(slice(0, n) for n in shape), copy)


@dataclass(frozen=True)
class Placed:
    """A local tensor and the boxes of a global tensor in it: none where the rank holds padding only."""

    tensor: torch.Tensor
    boxes: tuple[Box, ...]
    shape: tuple[int, ...]
    """Of the global tensor, without padding."""


@dataclass(frozen=True)
class Store:
    """Everything that a checkpoint keeps as tensors.

    model: the weights by canonical name (the FP32 masters in bf16_mixed).
    optimizer: the moments, as ``exp_avg.<name>`` and ``exp_avg_sq.<name>``.
    """

    model: Mapping[str, Placed]
    optimizer: Mapping[str, Placed]
