"""Save a checkpoint: write and fsync a temporary directory, the manifest last, and commit by one rename.

A kill at any moment leaves the older checkpoints untouched and at most one ``.saving-`` directory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from trainer.checkpoint.background import Finished, Flight, HostBuffer, buffer_bytes
from trainer.checkpoint.commit import Place
from trainer.checkpoint.exchange import Exchange, LostRank, WriteError
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.pieces import live_bytes, pieces
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.write import Parts, write
from trainer.errors import ConfigError, HangError, Problem
from trainer.parallel.boxes import Store


class Saver:
    """Writes the checkpoints of a run, while the caller waits (save) or beside training (begin). One at a time."""

    def __init__(
        self,
        directory: Path,
        keep: int,
        config_yaml: str,
        topology: Mapping[str, Any],
        process_group: dist.ProcessGroup | None = None,
        background_group: dist.ProcessGroup | None = None,
        keep_every: int = 0,
    ) -> None:
        """process_group: of all ranks, on the host; None for the default one, or for one process.

        background_group: likewise, for saves beside training alone: their ranks meet while the others' collectives are
        under way. With several processes begin() wants one. keep, keep_every: see Place.
        """
        self.place = Place(directory, keep, keep_every, config_yaml, topology)
        self._group, self._background = process_group, background_group
        self._buffer = HostBuffer()
        self._flight: Flight | None = None
        self._ended: deque[Finished] = deque()
        self._copied = threading.Event()
        self._copied.set()

    def save(self, store: Store, state: TrainState) -> Path:
        """Commit a checkpoint of the step. Raises ConfigError on a disk error; older checkpoints stay. Collective."""
        self._land()
        self._write(Exchange(self._group), partial(parts_of, store), state)
        return self.place.final(state.step)

    def reserve(self, store: Store) -> None:
        """Allocate the memory of begin() now: the first copy is then as fast as the others. Local."""
        self._buffer.reserve(buffer_bytes(parts_of(store)))

    def begin(self, store: Store, state: TrainState, wait_for_copy: bool = True) -> None:
        """Copy what this rank writes, and write it beside training. Collective; waits for a save in flight first.

        wait_for_copy: without, the copy too is made beside what comes next, and the caller calls ``copied`` before the
        store's tensors change: weights and moments are only read until the next update.
        """
        self._land()
        since, exchange = time.perf_counter(), Exchange(self._background)
        assert exchange.size == 1 or self._background is not None, "a save beside training wants its own group"
        self._copied.clear()
        work = partial(self._beside, exchange, store, deepcopy(state))
        self._flight = Flight(state.step, self.place.final(state.step), work, since)
        if wait_for_copy:
            self.copied()

    def copied(self) -> None:
        """Wait until the tensors that begin() was given may change. Local; at once when no copy is being made."""
        self._copied.wait()

    def _copy(self, store: Store) -> Callable[[], Parts]:
        """The copy; or, where it fails, its failure, to be raised where the other ranks hear of it."""
        try:
            copied = self._buffer.take(parts_of(store))
        except Exception as error:
            return partial(_raise, error)
        return lambda: copied

    def finished(self) -> Finished | None:
        """The next background save that has ended and was not reported yet. Local, and never waits.

        An error in it is every rank's, soon; older checkpoints stay, and the caller may go on or stop.
        """
        if self._flight is not None and self._flight.ended:
            self._land()
        return self._ended.popleft() if self._ended else None

    def wait(self) -> Finished | None:
        """Wait for the save in flight, and report as finished() does."""
        self._land()
        return self.finished()

    def _land(self) -> None:
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._ended.append(flight.land())

    def _write(self, exchange: Exchange, find: Callable[[], Parts], state: TrainState) -> int:
        """Turn a disk error, which the user can fix, into a ConfigError; any other failure keeps its traceback."""
        try:
            return write(self.place, exchange, find, live_bytes, state)
        except WriteError as error:
            rule = f"takes a checkpoint ({error}); the older ones are untouched"
            remedy = "make room or restore access, then give the same command again"
            raise ConfigError(Problem("run.root", str(self.place.directory), rule, remedy)) from error

    def _beside(self, exchange: Exchange, store: Store, state: TrainState) -> int:
        """In the background thread: a rank that does not answer is an error to report, as a full disk is."""
        try:
            copied = self._copy(store)
        finally:
            self._copied.set()
        try:
            return self._write(exchange, copied, state)
        except LostRank as error:
            rule = f"all ranks end it within the process group's timeout ({error}); the older ones are untouched"
            remedy = "look at the ranks that ended or hang; the same command goes on from the newest checkpoint"
            raise HangError(Problem("a save beside training", f"step {state.step}", rule, remedy)) from error


def _raise(error: Exception) -> Parts:
    raise error


def parts_of(store: Store) -> Parts:
    """What this rank writes of a store."""
    return {part: pieces(tensors) for part, tensors in zip(PARTS, (store.model, store.optimizer), strict=True)}
