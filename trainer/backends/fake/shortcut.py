"""The frequent operators on fake tensors without the mode's own way through them, which takes three times as long.

FakeTensorMode hashes every argument to look up what it has worked out before. For these operators the meta kernel itself is
quicker; what it returns is what the mode would return: a fake tensor on the CPU (tests/unit/test_fake_watch.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

aten = torch.ops.aten
_CPU = torch.device("cpu")

DIRECT = frozenset(
    {
        *(aten.view.default, aten._unsafe_view.default, aten.t.default, aten.detach.default, aten.alias.default),
        *(aten.transpose.int, aten.permute.default, aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim),
        *(aten.slice.Tensor, aten.select.int, aten.split.Tensor, aten.cat.default, aten.clone.default),
        *(aten.mul.Tensor, aten.mul.Scalar, aten.add.Tensor, aten.add_.Tensor, aten.add_.Scalar, aten.sub.Tensor),
        *(aten.neg.default, aten.div.Scalar, aten.pow.Tensor_Scalar, aten.rsqrt.default, aten.silu.default),
        *(aten.silu_backward.default, aten.mm.default, aten.sum.dim_IntList, aten.mean.dim, aten.copy_.default),
        aten._to_copy.default,
    }
)
"""Operators whose meta kernels say all: no Python decomposition, no device but that of their arguments."""
_HARMLESS = frozenset({"dtype", "memory_format"})
"""Keyword arguments that leave a result where it is."""


def applies(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the operator may go the short way with these arguments: every tensor among them is fake."""
    if func not in DIRECT or (kwargs and not _HARMLESS.issuperset(kwargs)):
        return False
    for argument in args:
        if isinstance(argument, torch.Tensor):
            if type(argument) is not FakeTensor:
                return False
        elif type(argument) is list and any(isinstance(x, torch.Tensor) and type(x) is not FakeTensor for x in argument):
            return False
    return True


def call(mode: FakeTensorMode, func: Any, args: Any, kwargs: Any) -> Any:
    """The operator's result on fake tensors."""
    with in_kernel_invocation_manager(mode):
        result = func(*args, **kwargs)
    if isinstance(result, torch.Tensor):
        return _fake(mode, result)
    return [_fake(mode, part) for part in result]


def _fake(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if isinstance(tensor, FakeTensor) else FakeTensor(mode, tensor, _CPU)
