"""Points the torch_xla calls that neuronx-distributed (NxD) and our neuron backend make at gloo and the CPU.

``install()`` goes before the first import of neuronx_distributed and of the code under test; ranks then call
``torch.distributed.init_process_group("gloo")``. NxD's own CPU mode (NXD_CPU_MODE=1) does the groups and the pipeline's
messages over gloo, and leaves the rest (ZeRO-1, clipping, the trainer, checkpoints) on torch_xla: that is what is
redirected here, so that code written for the device runs unmodified.

NxD itself may be the real source or a double with fewer modules: its names are changed only where they exist.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from tests.neuron import gloo_collectives, gloo_nxd, stand_ins

CPU = torch.device("cpu")
_closures: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
_seed = 0


def install() -> None:
    """Redirect torch_xla, then NxD. Raises RuntimeError without NXD_CPU_MODE=1."""
    if int(os.environ.get("NXD_CPU_MODE", "0")) < 1:
        raise RuntimeError("NXD_CPU_MODE=1 has to be set: NxD's own process groups are on gloo only then")
    stand_ins.install()
    provide_host_count()
    _redirect_runtime()
    _redirect_steps()
    _redirect_collectives()
    _let_zero_run_on_cpu()
    _let_modules_move_to_cpu()
    gloo_nxd.install()


def provide_host_count() -> None:
    """NxD divides by the number of hosts, whose name torch_xla 2.9 has dropped, unless PJRT_DEVICE is NEURON."""
    import torch_xla.core.xla_env_vars as names

    names.HOST_WORLD_SIZE = "HOST_WORLD_SIZE"
    os.environ.setdefault("HOST_WORLD_SIZE", "1")


def _from_torchrun(name: str, default: int) -> Callable[[], int]:
    return lambda: int(os.environ.get(name, default))


def _redirect_runtime() -> None:
    """Ordinals and sizes are torchrun's; the device is the CPU."""
    import torch_xla
    import torch_xla.core.xla_model as xm
    import torch_xla.runtime as xr

    xr.global_ordinal = xr.process_index = _from_torchrun("RANK", 0)
    xr.local_ordinal = _from_torchrun("LOCAL_RANK", 0)
    xr.world_size = xr.global_device_count = xr.process_count = _from_torchrun("WORLD_SIZE", 1)
    xr.local_process_count = _from_torchrun("LOCAL_WORLD_SIZE", 1)
    xr.addressable_device_count = xr.local_device_count = lambda: 1
    torch_xla.device = torch_xla.torch_xla.device = xm.xla_device = lambda *_, **__: CPU
    torch_xla.devices = lambda: [CPU]


def _redirect_steps() -> None:
    """A graph cut only runs the closures queued since the last one; the device's seed is kept, for nothing."""
    import torch_xla
    import torch_xla.core.xla_model as xm

    torch_xla.sync = torch_xla.torch_xla.sync = xm.mark_step = sync
    xm.add_step_closure = add_step_closure
    xm.get_rng_state, xm.set_rng_state = get_rng_state, set_rng_state
    # All of these order or finish lazy work, and there is none.
    xm.unlazy = xm.wait_device_ops = xm.optimization_barrier_ = lambda *_, **__: None
    torch_xla._XLAC._xla_sync_multi = lambda *_, **__: None
    xm.send_cpu_data_to_device = send_cpu_data_to_device


def sync(wait: bool = False, reset_scope: bool = True) -> None:
    """torch_xla.sync: the end of a graph."""
    due, _closures[:] = list(_closures), []
    for closure, args in due:
        closure(*args)


def send_cpu_data_to_device(datas: Any, device: object, input_sharding: object = None) -> Any:
    """What is sent to the device is a copy."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, datas)


def add_step_closure(closure: Callable[..., Any], args: tuple[Any, ...] = (), run_async: bool = False) -> None:
    """Queue until the next graph cut, as on the device; asynchronous ones run there too."""
    _closures.append((closure, args))


def get_rng_state(device: object = None) -> int:
    """The seed last set. Tensors on the CPU draw from torch's own generator, whatever this says."""
    return _seed


def set_rng_state(seed: int, device: object = None) -> None:
    """Keep a seed."""
    global _seed
    _seed = int(seed)


def _redirect_collectives() -> None:
    import torch_xla.core.xla_model as xm

    for function in gloo_collectives.REDIRECTED:
        setattr(xm, function.__name__, function)
    for name in ("all_to_all", "collective_permute", "collective_broadcast", "send", "recv"):
        setattr(xm, name, _refuse(name))


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"xm.{name} has no stand-in over gloo: write one in tests/neuron/gloo_collectives.py")

    return refuse


def _let_zero_run_on_cpu() -> None:
    """torch_xla's ZeRO-1 asserts an XLA device, and copies a parameter by taking it over the host and back.

    The method is compiled again from its source with the two places changed. Without the second, the FP32 masters would
    be views of the parameters, which hides what happens to a stale master.
    """
    import inspect
    import textwrap

    import torch_xla.distributed.zero_redundancy_optimizer as zero

    source = textwrap.dedent(inspect.getsource(zero.ZeroRedundancyOptimizer._shard_parameters))
    for device, host in (("assert self.device.type == 'xla'", "pass"), ('data.to(device="cpu")', "data.clone()")):
        if source.count(device) != 1:
            raise RuntimeError(f"torch_xla's ZeroRedundancyOptimizer._shard_parameters no longer says {device!r}")
        source = source.replace(device, host)
    compiled: dict[str, Any] = {}
    exec(compile(source, "torch_xla's _shard_parameters, for the CPU", "exec"), vars(zero), compiled)
    zero.ZeroRedundancyOptimizer._shard_parameters = compiled["_shard_parameters"]


def _let_modules_move_to_cpu() -> None:
    """Module.to("xla") stays on the CPU; unlike on the device, parameters keep what Python has attached to them."""
    move = torch.nn.Module.to

    def here(value: Any) -> Any:
        return CPU if isinstance(value, str | torch.device) and str(value).partition(":")[0] == "xla" else value

    def to(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        return move(self, *map(here, args), **{key: here(value) for key, value in kwargs.items()})

    torch.nn.Module.to = to  # type: ignore[method-assign,assignment]
