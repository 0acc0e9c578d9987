"""The next step's batches travel to the device while the current one computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from trainer.backends.base import StepSource
from trainer.backends.neuron.device import send
from trainer.batch import Batch, StepBatch


class Prefetch:
    """The same steps in the same order, ``depth`` and one more of them on the device ahead. It is itself a source.

    Each step brings its own cursor, so what is ahead and unused at a save is read again after a resume.
    """

    def __init__(self, source: StepSource, prepare: Callable[[Batch], Batch], depth: int = 1) -> None:
        """prepare: on the host, before a microbatch travels. depth: steps ahead, each in device memory."""
        self._prepare = prepare
        self._source = source
        self._queue: queue.Queue[StepBatch | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[StepBatch]:
        if self._thread is not None:
            raise RuntimeError("a prefetch is iterated once")
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)
        self._thread.start()
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _fill(self) -> None:
        try:
            for step in self._source:
                if not self._put(
                    replace(step, microbatches=send([self._prepare(batch) for batch in step.microbatches]))
                ):
                    return
            self._put(None)
        except BaseException as error:  # the consumer raises it
            self._put(error)

    def _put(self, item: StepBatch | BaseException | None) -> bool:
        """False when closed meanwhile."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        """Stop the thread, then the source."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._source.close()
