"""A fast path for frequent operators on fake tensors; FakeTensorMode itself takes several times as long.

A step repeats the same operators on the same shapes a hundred thousand times. FakeTensorMode has a cache for that,
whose key hashes every property of a tensor; ours are plain, strided and on the CPU, so shape, stride and dtype are
enough. tests/unit/test_fake_watch.py compares the results with the mode's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

aten = torch.ops.aten
_CPU = torch.device("cpu")

VIEWS = frozenset(
    {
        *(aten.view.default, aten._unsafe_view.default, aten.t.default, aten.detach.default, aten.alias.default),
        *(aten.transpose.int, aten.permute.default, aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim),
        *(aten.slice.Tensor, aten.select.int, aten.split.Tensor),
    }
)
"""Their results share memory with an argument; the meta kernel, here compiled code, makes them."""
IN_PLACE = frozenset({aten.add_.Tensor, aten.add_.Scalar, aten.mul_.Tensor, aten.copy_.default})
"""Their result is their first argument. The first call with a signature runs in the mode, which checks shapes."""
FRESH = frozenset(
    {
        *(aten.mul.Tensor, aten.mul.Scalar, aten.add.Tensor, aten.sub.Tensor, aten.neg.default, aten.div.Scalar),
        *(aten.pow.Tensor_Scalar, aten.rsqrt.default, aten.silu.default, aten.silu_backward.default),
        *(aten.sum.dim_IntList, aten.mean.dim, aten.mm.default, aten.cat.default, aten.clone.default),
        *(aten.sigmoid.default, aten._to_copy.default, aten.gelu.default, aten.gelu_backward.default),
    }
)
"""Their result is one new tensor, whose shape, stride and dtype follow from those of the arguments."""


class _Form(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Shortcut:
    """Calls operators under ``mode``, by the fast path where there is one."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._forms: dict[Any, _Form] = {}

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operator's result on fake tensors."""
        if func in VIEWS and type(args[0]) is FakeTensor and args[0].fake_device == _CPU:
            return self._view(func, args, kwargs)
        if not (func in FRESH or func in IN_PLACE):
            return func(*args, **kwargs)
        key = (func, _signature(args), *kwargs.items())
        form = self._forms.get(key)
        if form is None:
            result = func(*args, **kwargs)
            if _plain(result) and None not in key[1]:
                self._forms[key] = _form(result)
            return result
        if func in IN_PLACE:
            return args[0]
        with in_kernel_invocation_manager(self._mode):
            empty = torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta")
        return FakeTensor(self._mode, empty, _CPU)

    def _view(self, func: Any, args: Any, kwargs: Any) -> Any:
        with in_kernel_invocation_manager(self._mode):
            result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return FakeTensor(self._mode, result, _CPU)
        return [FakeTensor(self._mode, part, _CPU) for part in result]


def _signature(args: Any) -> tuple[Any, ...]:
    """Key for the form of a result; None in place of an argument without a fast path."""
    return tuple([_sign(argument) for argument in args])


def _sign(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return _form(argument) if _plain(argument) else None
    if isinstance(argument, (list, tuple)):
        parts = tuple([_sign(part) for part in argument])
        return None if None in parts else parts
    return (type(argument), argument) if argument is not None else ()


def _plain(value: Any) -> bool:
    """A fake tensor on the CPU without values; the mode keeps the values of some small ones."""
    return type(value) is FakeTensor and value.constant is None and value.fake_device == _CPU


def _form(tensor: torch.Tensor) -> _Form:
    return _Form(tuple(tensor.shape), tensor.stride(), tensor.dtype)
