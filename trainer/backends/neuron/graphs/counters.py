"""What torch_xla has counted in this process, exactly and at once.

Compilations and launches are counted by the thread that asks for them (CompileTime and ExecuteTime are samples, taken
when a background thread gets there). torch_xla/csrc/xla_graph_executor.cpp counts an UncachedCompile for each graph
that is not in its cache, and a CachedCompile for each that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch_xla.debug.metrics as metrics

from trainer.backends.neuron.device import Deferred


@dataclass(frozen=True)
class Counts:
    """Since the process began, or between two moments.

    compiled: graphs compiled. launched: graphs run, compiled or not. read: transfers from the device, those of Deferred
    left out. scalars: of the reads, ``.item()``, ``float()`` and ``if tensor``.
    """

    compiled: int
    launched: int
    read: int
    scalars: int
    deferred_started: int = 0
    deferred_finished: int = 0

    def since(self, before: Counts) -> Counts:
        """The difference. Reads by Deferred in other threads may fall on either side of a moment: they are given the
        benefit of the doubt, so ``read`` is never too high."""
        mine = self.read - before.read - (self.deferred_started - before.deferred_finished)
        scalars = self.scalars - before.scalars
        return Counts(self.compiled - before.compiled, self.launched - before.launched, max(mine, scalars, 0), scalars)


def now() -> Counts:
    """Where the counters stand."""
    finished = Deferred.finished  # before the transfers are counted, and started after: see since
    compiled, cached = _counter("UncachedCompile"), _counter("CachedCompile")
    transfers = metrics.metric_data("TransferFromDeviceTime")
    read, scalars = (transfers[0] if transfers else 0), _counter("aten::_local_scalar_dense")
    return Counts(compiled, compiled + cached, read, scalars, Deferred.started, finished)


def _counter(name: str) -> int:
    return metrics.counter_value(name) or 0


def host_fallbacks() -> list[str]:
    """Operations that torch_xla has run on the host since the process began, for want of a lowering."""
    return sorted(set(metrics.executed_fallback_ops()) - {"aten::_local_scalar_dense"})
