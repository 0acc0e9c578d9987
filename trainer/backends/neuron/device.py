"""The one place that talks to torch_xla while training: the device, the cut of a graph, transfers either way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.runtime as xr

from trainer.batch import Batch
from trainer.trainium.environment import COMPILE_SECONDS

_STALL_SECONDS = 2 * COMPILE_SECONDS
"""Longest wait for a step's scalars: of a rank that has compiled, for one that has yet to."""


def device() -> torch.device:
    """This process's XLA device."""
    found: torch.device = torch_xla.device()
    return found


def sync(wait: bool = False) -> None:
    """Cut the graph here and launch it; step closures run. The only place that may execute inside a guarded phase.

    wait: until the device is done, as before a measurement.
    """
    for callback in tuple(_before_sync):
        callback()
    with execution(allowed=True):
        torch_xla.sync(wait=wait)


_before_sync: list[Callable[[], None]] = []


@contextmanager
def before_sync(callback: Callable[[], None]) -> Iterator[None]:
    """Call back before every sync inside, while the graph that it will launch is still pending."""
    _before_sync.append(callback)
    try:
        yield
    finally:
        _before_sync.remove(callback)


@contextmanager
def execution(allowed: bool) -> Iterator[None]:
    """Whether torch_xla may launch a graph; where it may not, ``.item()`` and its kind raise at the line that reads.

    The switch is torch_xla's own, of torch_xla.compile(full_graph=True).
    """
    before = torch_xla._XLAC._get_allow_execution()
    torch_xla._XLAC._set_allow_execution(allowed)
    try:
        yield
    finally:
        torch_xla._XLAC._set_allow_execution(before)


def is_extracting() -> bool:
    """Whether neuron_parallel_compile only collects graphs: results are zeros, so nothing on the host may act on them.

    Then there is no saving, no check of a loss, no early stop, no record. It sets NEURON_EXTRACT_GRAPHS_ONLY=1 for the
    run (AWS Neuron documentation, "PyTorch NeuronX neuron_parallel_compile CLI").
    """
    return os.environ.get("NEURON_EXTRACT_GRAPHS_ONLY", "") not in ("", "0")


def has_kernels(where: torch.device) -> bool:
    """Whether there are NKI kernels: not where XLA runs on the CPU, nor without XLA."""
    return where.type == "xla" and bool(xr.device_type() != "CPU")


def send(batches: Sequence[Batch]) -> list[Batch]:
    """Host batches on the device, in one transfer that does not wait; batches that are there already stay.

    Shapes and dtypes are kept. They become graph parameters, never constants.
    """
    host = [tensor for batch in batches for tensor in batch if tensor.device.type == "cpu"]
    sent: Any = xm.send_cpu_data_to_device(host, device()) if host else []
    moved: Iterator[torch.Tensor] = iter(sent)
    return [Batch(*(next(moved) if tensor.device.type == "cpu" else tensor for tensor in batch)) for batch in batches]


class Deferred:
    """Device scalars of a step as host numbers, read after the step in a thread of their own: nobody stalls.

    Make it before the step's sync; the read is a step closure (torch_xla.core.xla_model.add_step_closure), so it is
    queued behind this step's graph and not behind the next one's. All scalars travel as one FP32 tensor.
    """

    _lock = threading.Lock()
    started = 0
    """Reads that have begun, of all instances: the compile guard does not take them for reads of the step."""
    finished = 0

    def __init__(self, *scalars: torch.Tensor) -> None:
        """scalars: any dtype and device, shape []; booleans become 0.0 or 1.0."""
        self._values: tuple[float, ...] | None = None
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._tensor = torch.stack([scalar.detach().to(torch.float32) for scalar in scalars])
        if is_extracting():
            self._settle((0.0,) * len(scalars))
        else:
            xm.add_step_closure(self._read, run_async=True)

    def _settle(self, values: tuple[float, ...] | None) -> None:
        self._values = values
        self._ready.set()

    def _read(self) -> None:
        """In the closure's thread."""
        with Deferred._lock:
            Deferred.started += 1
        try:
            self._settle(tuple(self._tensor.cpu().tolist()))
        except Exception as error:
            self._failure = error
            self._settle(None)
        finally:
            with Deferred._lock:
                Deferred.finished += 1

    @property
    def ready(self) -> bool:
        """Whether ``values`` would return at once."""
        return self._ready.is_set()

    def values(self) -> tuple[float, ...]:
        """The scalars, in order; waits for the device when it has not got there. Zeros while graphs are extracted.

        Raises TimeoutError when the step has not come to its sync, and whatever the read raised.
        """
        if not self._ready.wait(_STALL_SECONDS):
            raise TimeoutError(f"no metrics after {_STALL_SECONDS:.0f} s: was the step's graph ever launched?")
        if self._values is None:
            raise RuntimeError("a step's metrics could not be read from the device") from self._failure
        return self._values
