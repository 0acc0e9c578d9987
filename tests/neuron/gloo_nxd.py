"""What NxD's own CPU mode does otherwise than its device path, put right; only names that exist are changed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

PACKAGE = "neuronx_distributed"


def install() -> None:
    """Import NxD, the source or the double that comes first on the path, and correct it."""
    importlib.import_module(PACKAGE)
    _use_device_collectives()
    _let_linears_meet_strided_gradients()
    _send_dense_tensors()
    _copy_what_is_saved()


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(PACKAGE):
            raise
        return None  # the double has no such module


def _wrap(module: ModuleType | None, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function by one around it, if there is such a function."""
    if module is not None and hasattr(module, name):
        setattr(module, name, around(getattr(module, name)))


def _use_device_collectives() -> None:
    """Collectives of NxD's layers call torch_xla as on the device, and so ours.

    In CPU mode its reduce-scatter overwrites its input and returns nothing, and its all-reduce does not know the
    replica groups that the gradient norm under ZeRO-1 passes.
    """
    comm = _module("parallel_layers.comm")
    _wrap(comm, "cpu_mode", lambda _: lambda: False)
    _wrap(comm, "_get_group_mesh", lambda _: lambda groups: groups)


def _let_linears_meet_strided_gradients() -> None:
    """Backward calls .view() on what it gets; tensors are always dense on XLA, and transposed ones are not here."""

    def dense(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: tuple(None if t is None else t.contiguous() for t in function(*args))

    def of_dense(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input, weight, grad, bias: function(input.contiguous(), weight, grad.contiguous(), bias)

    _wrap(_module("parallel_layers.layers"), "_linear_autograd_base_setup_bwd", dense)
    _wrap(_module("modules.qkv_linear"), "_compute_gradients", of_dense)


def _send_dense_tensors() -> None:
    """gloo refuses others, and a sequence-parallel region along dim 1 makes them; XLA has none."""

    def dense(send: Callable[..., Any]) -> Callable[..., Any]:
        return lambda tensor, *args, **options: send(tensor.contiguous(), *args, **options)

    _wrap(_module("pipeline.model"), "send", dense)


def _copy_what_is_saved() -> None:
    """From device to host is a copy; here it would be the live weights, which a save in the background meets later."""

    def copied(save: Callable[..., Any]) -> Callable[..., Any]:
        return lambda state, *args, **kwargs: save(
            torch.utils._pytree.tree_map_only(torch.Tensor, _copy, state), *args, **kwargs
        )

    _wrap(_module("trainer.checkpoint"), "_save", copied)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().clone()
    copy.__dict__.update(vars(tensor))  # NxD's marks are attributes
    return copy
