"""torch_xla's collectives as a rank computes them that is alone: the shapes are right, the values are not.

For tests that count graphs: a collective takes part in a graph as any operation does, and one process can run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch_xla


def install() -> None:
    """Replace what torch_xla's Python calls, in this process."""
    for name, function in REPLACED.items():
        assert hasattr(torch_xla._XLAC, name), name
        setattr(torch_xla._XLAC, name, function)


def _all_reduce(kind: str, tensor: torch.Tensor, scale: float, *_: Any) -> torch.Tensor:
    return tensor * scale


def _all_reduce_inplace(kind: str, tensors: Sequence[torch.Tensor], scale: float, *_: Any) -> None:
    for tensor in tensors:
        tensor.mul_(scale)


def _all_gather(tensor: torch.Tensor, dim: int, count: int, *_: Any) -> torch.Tensor:
    return torch.cat([tensor] * count, dim)


def _all_gather_coalesced(tensors: Sequence[torch.Tensor], token: Any, dim: int, count: int, *_: Any) -> list[Any]:
    return [*(_all_gather(tensor, dim, count) for tensor in tensors), token]


def _part(tensor: torch.Tensor, scale: float, dim: int, count: int) -> torch.Tensor:
    return tensor.narrow(dim, 0, tensor.shape[dim] // count) * (scale * count)


def _reduce_scatter(
    kind: str, tensor: torch.Tensor, token: Any, scale: float, dim: int, count: int, *_: Any
) -> tuple[torch.Tensor, Any]:
    return _part(tensor, scale, dim, count), token


def _reduce_scatter_coalesced(
    kind: str, tensors: Sequence[torch.Tensor], token: Any, scale: float, dim: int, count: int, *_: Any
) -> list[Any]:
    return [*(_part(tensor, scale, dim, count) for tensor in tensors), token]


def _reduce_scatter_out(
    kind: str, output: torch.Tensor, tensor: torch.Tensor, token: Any, scale: float, dim: int, count: int, *_: Any
) -> Any:
    output.detach().copy_(_part(tensor, scale, dim, count))
    return token


def _refuse(*_: Any) -> None:
    raise NotImplementedError("add this collective to tests/neuron/alone.py")


REPLACED = {
    "_xla_all_reduce": _all_reduce,
    "_xla_all_reduce_inplace": _all_reduce_inplace,
    "_xla_all_gather": _all_gather,
    "_xla_all_gather_coalesced": _all_gather_coalesced,
    "_xla_reduce_scatter": _reduce_scatter,
    "_xla_reduce_scatter_coalesced": _reduce_scatter_coalesced,
    "_xla_reduce_scatter_out": _reduce_scatter_out,
    **dict.fromkeys(
        (
            "_xla_all_gather_out",
            "_xla_all_gather_coalesced_out",
            "_xla_all_to_all",
            "_xla_collective_permute",
            "_xla_reduce_scatter_coalesced_out",
        ),
        _refuse,
    ),
}
