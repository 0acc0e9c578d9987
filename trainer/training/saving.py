"""When to save, what is looked at before, and the saves that are still being written."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainer.backends.base import Backend
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.observe.records import SaveRecord
from trainer.training.replicas import compare_replicas
from trainer.training.watchdog import Watchdog


class Saves:
    """Of one launch. newest: step of the newest checkpoint that this launch has begun from or written."""

    def __init__(
        self,
        config: CheckpointConfig,
        saver: Saver,
        backend: Backend,
        watchdog: Watchdog,
        newest: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: seconds; only rank 0's counts."""
        self._config, self._saver, self._backend, self._watchdog = config, saver, backend, watchdog
        self._clock, self._last = clock, clock()
        self.newest = newest

    def due_by_clock(self) -> bool:
        """Whether so many minutes have passed since the last save began."""
        every = 60 * self._config.every_minutes
        return bool(every) and self._clock() - self._last >= every

    def due(self, step: int) -> bool:
        """Whether the number of steps asks for a save."""
        every = self._config.every_steps
        return bool(every) and step % every == 0

    def save(self, state: TrainState) -> SaveRecord | None:
        """Commit a checkpoint of where training stands; None where there is one already. Collective.

        Raises ReplicasError before anything is written where copies differ, and ConfigError on a disk error.
        """
        if self.newest == state.step:
            return None
        start = time.perf_counter()
        self._last = self._clock()
        with self._watchdog.phase("save"):
            state.rng = self._backend.rng_state()
            store = self._backend.store()
            compare_replicas(self._backend, state.step)
            path = self._saver.save(store, state)
        self.newest = state.step
        return SaveRecord(state.step, str(path), time.perf_counter() - start)

    def audit(self, step: int) -> None:
        """Compare the copies between saves, too. Collective."""
        with self._watchdog.phase("save"):
            compare_replicas(self._backend, step)
