"""torch_xla's counters of this process, exact and up to date.

Compilations and launches are counted by the thread that requests them (CompileTime and ExecuteTime are samples, taken
later by a background thread). torch_xla/csrc/xla_graph_executor.cpp counts an UncachedCompile for each graph
that is not in its cache, and a CachedCompile for each that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch_xla.debug.metrics as metrics

from trainer.backends.neuron.device import Deferred


@dataclass(frozen=True)
class Counts:
    """Since the process began, or between two moments.

    compiled: graphs compiled. launched: graphs run, newly compiled or cached. read: transfers from the device, without
    those of Deferred. scalars: the reads by ``.item()``, ``float()`` and ``if tensor``.
    """

    compiled: int
    launched: int
    read: int
    scalars: int
    deferred_started: int = 0
    deferred_finished: int = 0

    def since(self, before: Counts) -> Counts:
        """The difference. Reads by Deferred in other threads may fall on either side of a moment: all that may lie
        between are subtracted, so ``read`` is never too high."""
        mine = self.read - before.read - (self.deferred_started - before.deferred_finished)
        scalars = self.scalars - before.scalars
        return Counts(self.compiled - before.compiled, self.launched - before.launched, max(mine, scalars, 0), scalars)


def now() -> Counts:
    """The current counts."""
    finished = Deferred.finished  # before the transfers are counted, and started after: see since
    compiled, cached = _counter("UncachedCompile"), _counter("CachedCompile")
    transfers = metrics.metric_data("TransferFromDeviceTime")
    read, scalars = (transfers[0] if transfers else 0), _counter("aten::_local_scalar_dense")
    return Counts(compiled, compiled + cached, read, scalars, Deferred.started, finished)


def _counter(name: str) -> int:
    return metrics.counter_value(name) or 0


def host_fallbacks() -> list[str]:
    """Operations that torch_xla has run on the host since the process began, because it cannot lower them."""
    return sorted(set(metrics.executed_fallback_ops()) - {"aten::_local_scalar_dense"})
