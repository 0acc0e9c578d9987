"""The next step's batches travel to the device while the current one computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from trainer.ahead import Ahead
from trainer.backends.base import StepSource
from trainer.backends.neuron.device import send
from trainer.batch import Batch, StepBatch

CLOSE_SECONDS = 10.0
"""Longest wait for a transfer at the end: a device that hangs must not keep the process from its exit code."""


class Prefetch:
    """The same steps in the same order, ``depth`` and one more of them on the device ahead. It is itself a source.

    Each step brings its own cursor, so what is ahead and unused at a save is read again after a resume.
    """

    def __init__(self, source: StepSource, prepare: Callable[[Batch], Batch], depth: int = 1) -> None:
        """prepare: on the host, before a microbatch travels. depth: steps ahead, each in device memory."""
        self._prepare = prepare
        self._source = source
        self._depth = depth
        self._ahead: Ahead[StepBatch] | None = None

    def __iter__(self) -> Iterator[StepBatch]:
        if self._ahead is not None:
            raise RuntimeError("a prefetch is iterated once")
        self._ahead = Ahead(map(self._send, self._source), self._depth, "prefetch")
        return self._ahead

    def _send(self, step: StepBatch) -> StepBatch:
        return replace(step, microbatches=send([self._prepare(batch) for batch in step.microbatches]))

    def close(self) -> None:
        """Stop the thread, then the source."""
        if self._ahead is not None:
            self._ahead.close(CLOSE_SECONDS)
        self._source.close()
