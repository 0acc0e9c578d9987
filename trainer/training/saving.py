"""When to save, what is looked at before, and the saves that are written beside training."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from trainer.backends.base import Backend
from trainer.checkpoint.base import without
from trainer.checkpoint.room import available_memory, needs, refuse_too_little_room, why_synchronous
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.config.schema import Config
from trainer.errors import RunError
from trainer.observe.records import SaveRecord
from trainer.parallel.boxes import Store
from trainer.rules.grace import too_short
from trainer.training.collective import on_rank_zero
from trainer.training.replicas import compare_replicas
from trainer.training.watchdog import Watchdog

NONE = -1


class Saves:
    """Of one launch. newest: step of the newest checkpoint that this launch has begun from or saved."""

    def __init__(
        self,
        config: CheckpointConfig,
        saver: Saver,
        backend: Backend,
        watchdog: Watchdog,
        newest: int,
        clock: Callable[[], float] = time.monotonic,
        saved: Callable[[Path], object] | None = None,
        base: Collection[str] = (),
    ) -> None:
        """clock: seconds; only rank 0's counts. saved: hears of each checkpoint; must not wait or fail. base: names of
        the weights that checkpoints do not hold.
        """
        self._saved = saved or (lambda path: None)
        self._config, self._saver, self._backend, self._watchdog = config, saver, backend, watchdog
        self._clock, self._last = clock, clock()
        self._beside, self._base = False, base
        self.newest = newest

    def prepare(self, ranks_here: int, best: bool = False) -> str | None:
        """Before the first step: see to room for saves. Collective; a line to print where saves will hold up training.

        ranks_here: of this host. best: the best checkpoint is kept beside the newest. Raises ConfigError on every rank
        where the disk is too small.
        """
        saving, store = self._backend.saving, self._stored()
        mine = needs(store)
        (written,) = saving.sum([mine.written])
        place = self._saver.place.directory
        on_rank_zero(saving, lambda: refuse_too_little_room(place, written, self._config.keep, best))
        available = available_memory()
        why = None if available is None else why_synchronous(mine.buffer * ranks_here, available)
        if self._config.mode == "sync":
            return None
        (short,) = saving.sum([int(why is not None)])
        self._beside = not short or self._config.mode == "async"
        if self._beside:
            self._saver.reserve(store)
            return None
        return why or f"saves hold up training: {short} ranks have too little memory for a copy"

    def _stored(self) -> Store:
        return without(self._backend.store(), self._base)

    def due_by_clock(self) -> bool:
        """Whether so many minutes have passed since the last save began."""
        every = 60 * self._config.every_minutes
        return bool(every) and self._clock() - self._last >= every

    def due(self, step: int) -> bool:
        """Whether the number of steps asks for a save."""
        every = self._config.every_steps
        return bool(every) and step % every == 0

    def save(self, state: TrainState, wait: bool) -> SaveRecord | None:
        """Commit a checkpoint of where training stands, or begin to; None where there is one, or it is not yet written.

        Collective. wait: until it is written. Raises ReplicasError before anything is written where copies differ, and
        ConfigError on a disk error.
        """
        if self.newest == state.step:
            return None
        start = time.perf_counter()
        self._last = self._clock()
        with self._watchdog.phase("save"):
            state.rng = self._backend.rng_state()
            store = self._stored()
            compare_replicas(self._backend, state.step)
            self.newest = state.step
            if self._beside and not wait:
                self._saver.begin(store, state, wait_for_copy=False)
                return None
            path = self._saver.save(store, state)
            self._saved(path)
        return SaveRecord(state.step, str(path), time.perf_counter() - start)

    def copied(self) -> None:
        """Wait until what is being saved may change. Local; at once where nothing is being copied."""
        self._saver.copied()

    def ended(self, wait: bool = False) -> Iterator[SaveRecord | RunError]:
        """Saves beside training that have ended since the last call: their records, or what kept them from it.

        Local. wait: for the one in flight, too.
        """
        done = self._saver.wait() if wait else self._saver.finished()
        while done is not None:
            if done.error is not None:
                self.newest = NONE
                yield done.error
            else:
                self._saved(done.path)
                yield SaveRecord(done.step, str(done.path), done.seconds)
            done = self._saver.finished()

    def audit(self, step: int) -> None:
        """Compare the copies between saves, too. Collective."""
        with self._watchdog.phase("save"):
            compare_replicas(self._backend, step)


def short_grace(config: Config, accumulation: int, backend: Backend, step: float, save: float) -> str | None:
    """A line where the grace is shorter than a stop takes here, by measured seconds of a step and a save."""
    share = 1.0 if config.parallel.pp > 1 else min(1.0, backend.ahead_by / accumulation)
    return too_short(config.reliability.grace_seconds, step, share, save)
