"""Ends a launch in which a rank does not come to where the others wait for it, and says who it was.

Each rank counts the places that its program passes (a phase begins or ends, a microbatch is done), in the same order on
all ranks, and a thread of its own tells the others every few seconds where it is. A rank that stays at one place for
longer than the phase allows calls for the end; then the ranks behind the others, or silent, are the ones to look at.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch.distributed as dist

from trainer.backends.common.peers import REMEDY, Peers
from trainer.errors import ElsewhereError, ExitCode, HangError, Problem, RunError

BEATS = 4
"""Beats in the shortest limit; a beat is never longer than BEAT_SECONDS."""
BEAT_SECONDS = 2.0
STACK_LINES = 12
PHASES = ("set-up", "data", "batch", "step", "evaluation", "save")
CALL, ENDED, VERDICT = "hang", "ended", "verdict"


@dataclass(frozen=True)
class Place:
    """Where a rank is. count: places passed until now. beat: how often it has told."""

    phase: str
    count: int
    beat: int
    host: str
    stack: str = ""


class Watchdog:
    """Context manager around everything that ranks do together. ``phase`` and ``passed`` are for the main thread."""

    def __init__(self, peers: Peers, limits: Mapping[str, float], report: Callable[[RunError], object]) -> None:
        """limits: seconds that a rank may stay at one place, by phase. report: prints an error and leaves exit.json;
        called in the thread, before the process exits.
        """
        self.peers, self._limits, self._report = peers, limits, report
        self._phase, self._count, self._since, self._limit = "set-up", 0, time.monotonic(), float("inf")
        self._beat, self._calm = 0, threading.Event()
        self._seconds = min(BEAT_SECONDS, min(limits.values()) / BEATS)
        self._main = threading.get_ident()
        self._call: str | None = None
        self._explaining = False
        self._concluding = threading.Lock()
        """Held, and never let go, by the thread that reports."""

    @classmethod
    def alone(cls) -> Watchdog:
        """Of the only process: nobody waits for anybody."""
        return cls(Peers(dist.HashStore()), dict.fromkeys(PHASES, float("inf")), lambda error: None)

    def __enter__(self) -> Watchdog:
        if self.peers.size > 1:
            for work in (self._tell, self._watch):
                threading.Thread(target=work, name=f"watchdog{work.__name__}", daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._calm.set()
        if error is not None and self.peers.size > 1:
            with suppress(Exception):
                code = int(error.code) if isinstance(error, RunError) else 1
                self.peers.post(f"{ENDED}/{self.peers.rank}", str(code))

    @contextmanager
    def phase(self, name: str, more: float = 0.0) -> Iterator[None]:
        """A part of the program with a limit of its own, which ranks begin and end together. more: seconds on top."""
        before = (self._phase, self._limit)
        self._move(name, self._limits[name] + more)
        yield  # an error leaves the phase as it is: that is where it happened
        self._move(*before)

    def _move(self, phase: str, limit: float) -> None:
        self._phase, self._limit = phase, limit
        self.passed()

    def passed(self) -> None:
        """Another place is passed."""
        self._count += 1
        self._since = time.monotonic()

    def explain(self, error: BaseException) -> RunError | None:
        """What is behind an error of a collective: another rank's end, or a rank that hangs or is gone.

        None for an error of another kind, and where the other rank's end is a crash with a traceback of its own.
        """
        if self.peers.size == 1 or not of_a_collective(error):
            return None
        self._explaining = True
        with suppress(Exception):
            time.sleep(self._seconds)  # whoever has ended says so by now
            if (ended := self._first_end()) is not None:
                rank, code = ended
                return ElsewhereError(code, rank) if code in set(ExitCode) else None
            if not self._concluding.acquire(blocking=False):
                threading.Event().wait()  # the other thread reports, and ends the process
            self.peers.post(CALL, self._phase)
            return self._verdict(f"rank {self.peers.rank} lost its connection in {self._phase}")
        return None

    def _first_end(self) -> tuple[int, int] | None:
        """The lowest rank that has said that it ends, and its code."""
        for rank in range(self.peers.size):
            code = self.peers.look(f"{ENDED}/{rank}")
            if rank != self.peers.rank and code is not None:
                return rank, int(code)
        return None

    def _tell(self) -> None:
        """In a thread: say where this rank is, and hear whether any calls for the end."""
        with suppress(Exception):  # without the store there is nobody to tell; the other thread still watches
            peers = self.peers.another()
            while not self._calm.wait(self._seconds):
                self._beat += 1
                called = peers.look(CALL)
                stack = self._stack() if called is not None or self._call is not None else ""
                place = Place(self._phase, self._count, self._beat, peers.host, stack)
                peers.post(f"place/{peers.rank}", json.dumps(vars(place)))
                self._call = self._call or called

    def _watch(self) -> None:
        """In a thread: end this process when its main thread stays too long, or when another rank calls for it."""
        while not self._calm.wait(self._seconds / 2):
            stayed, limit, phase = time.monotonic() - self._since, self._limit, self._phase
            if stayed <= limit and self._call is None:
                continue
            if self._call is None:
                self._call = phase
                with suppress(Exception):
                    self.peers.another().post(CALL, phase)
            reason = f"in {self._call}, where {self._limits.get(self._call, limit):g} s are allowed"
            self._end(reason)

    def _end(self, reason: str) -> None:
        """Find out who it was, report and leave; in time, whatever the store does."""
        found: list[HangError] = []

        def ask() -> None:
            with suppress(Exception):
                found.append(self._verdict(reason))

        if not self._concluding.acquire(blocking=False):
            return
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(20 * self._seconds + 5)
        if self._calm.is_set():
            return
        if not found:
            rule = "the launch's store answers; it does not, so rank 0's host or its launcher is gone or stopped"
            found.append(HangError(Problem("hang", reason, rule, REMEDY)))
        try:
            self._report(found[0])
        finally:
            os._exit(int(ExitCode.HANG))

    def _verdict(self, reason: str) -> HangError:
        """Rank 0 finds out for all; the others do where it is silent."""
        peers = self.peers.another()
        if peers.rank:
            with suppress(HangError):
                return _read(peers.wait(VERDICT, VERDICT, 8 * self._seconds))
        error = self._conclude(peers, reason)
        peers.post(VERDICT, _written(error))
        return error

    def _conclude(self, peers: Peers, reason: str) -> HangError:
        """Two looks at all ranks: who is silent between them, who is behind."""
        time.sleep(self._seconds)
        first = self._places(peers)
        time.sleep(2.5 * self._seconds)  # two beats of every rank that lives
        last = self._places(peers)
        silent = [rank for rank in range(peers.size) if rank not in last or last[rank].beat == _beat(first.get(rank))]
        awake = {rank: last[rank].count for rank in last if rank not in silent or rank == peers.rank}
        error = blame(reason, peers.size, [rank for rank in silent if rank != peers.rank], _behind(awake), last)
        error.rank = min(awake)
        return error

    def _places(self, peers: Peers) -> dict[int, Place]:
        texts = {rank: peers.look(f"place/{rank}") for rank in range(peers.size)}
        return {rank: Place(**json.loads(text)) for rank, text in texts.items() if text is not None}

    def _stack(self) -> str:
        frame = None if self._explaining else sys._current_frames().get(self._main)
        return "".join(traceback.format_stack(frame)[-STACK_LINES:]) if frame is not None else ""


def _beat(place: Place | None) -> int:
    return -1 if place is None else place.beat


def _written(error: HangError) -> str:
    (problem,) = error.problems
    return json.dumps([vars(problem), error.rank, error.stacks])


def _read(text: str) -> HangError:
    problem, rank, stacks = json.loads(text)
    error = HangError(Problem(**problem))
    error.rank, error.stacks = rank, stacks
    return error


def _behind(counts: Mapping[int, int]) -> list[int]:
    """Ranks that have passed fewer places than the foremost."""
    most = max(counts.values(), default=0)
    return [rank for rank, count in counts.items() if count < most]


def blame(reason: str, size: int, silent: list[int], behind: list[int], places: Mapping[int, Place]) -> HangError:
    """The error that names the ranks: those that are silent, else those behind, else nobody."""

    def named(rank: int) -> str:
        place = places.get(rank)
        return f"rank {rank}" if place is None else f"rank {rank} on {place.host}, in {place.phase}"

    if silent:
        rule = f"every rank arrives; no sign of life from {'; '.join(map(named, silent[:8]))} (ended, stopped, cut off)"
    elif behind:
        rule = f"every rank arrives; behind the others: {'; '.join(map(named, behind[:8]))}"
    else:
        rule = f"every rank arrives; all {size} are at the same place ({named(0)}): look at the network or the devices"
    error = HangError(Problem("hang", reason, rule, REMEDY))
    error.stacks = {str(rank): places[rank].stack for rank in (behind or sorted(places))[:2] if places[rank].stack}
    return error


def of_a_collective(error: BaseException) -> bool:
    """Whether a collective has failed, rather than what is computed: gloo and the store raise no type of their own."""
    text = str(error)
    words = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")
    return type(error).__name__.startswith("Dist") or (
        isinstance(error, RuntimeError) and any(word in text for word in words)
    )
