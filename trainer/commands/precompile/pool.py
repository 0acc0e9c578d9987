"""Many compilations, as many at once as memory takes. One that fails is tried again, later; the others do not wait."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.commands.precompile.compiler import Busy, Compilation
from trainer.trainium.compiled import NEFF, Graph

GIB_EACH = 64.0
"""What AWS's neuron_parallel_compile counts for each of its compilers (torch-neuronx, neuron_parallel_compile.py)."""
LOOK_SECONDS = 0.1
SAY_SECONDS = 60.0
"""Between two lines about compilations that are at work."""


def available_gib() -> float:
    """Memory that processes can still have, as the kernel estimates it; infinite where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable")) / 2**20
    except (OSError, StopIteration):
        return math.inf


@dataclass(frozen=True)
class Limits:
    """jobs: compilations at once, at most. gib: what each may need. retries: of a graph that failed."""

    jobs: int
    gib: float = GIB_EACH
    retries: int = 1
    available: Callable[[], float] = available_gib

    @classmethod
    def of(cls, jobs: int | None, gib: float, retries: int) -> Limits:
        """As many as there is memory for now, and one at least; never more than processors."""
        room = available_gib() / gib
        most = os.cpu_count() or 1
        return cls(jobs or max(1, min(most, int(min(room, most)))), gib, retries)


@dataclass
class Pool:
    """Compiles graphs. failures: why a graph has no NEFF, by key; busy: those that another process compiles."""

    compiler: Sequence[str]
    work: Path
    limits: Limits
    failures: dict[str, str] = field(default_factory=dict)
    busy: list[Graph] = field(default_factory=list)

    def compile(self, graphs: Sequence[Graph]) -> Iterator[str]:
        """A line for each thing that happens. No process is left when this ends, in whatever way."""
        waiting, alone = deque(graphs), deque[Graph]()
        tries: dict[str, int] = {}
        running: list[Compilation] = []
        total, done, said = len(graphs), 0, time.monotonic()
        try:
            while waiting or alone or running:
                if not waiting and not running and alone:
                    waiting.append(alone.popleft())
                yield from self._start(waiting, running)
                for one in [one for one in running if one.ended]:
                    killed, seconds = one.was_killed, one.seconds
                    why, key = one.finish(), one.graph.key
                    running.remove(one)  # not before: a stop may come at any of these lines
                    tries[key] = tries.get(key, 0) + 1
                    again = bool(why) and tries[key] <= self.limits.retries
                    if again:
                        (alone if killed else waiting).append(one.graph)
                    elif why:
                        self.failures[key] = why
                    done += not again
                    yield f"[{done}/{total}] {key}: {_told(one, why, again, killed, seconds)}"
                if time.monotonic() - said > SAY_SECONDS and running:
                    said = time.monotonic()
                    names = ", ".join(f"{one.graph.key} {one.seconds:.0f} s" for one in running)
                    yield f"[{done}/{total}] at work: {names}; {len(waiting) + len(alone)} wait"
                if running:
                    time.sleep(LOOK_SECONDS)
        finally:
            for one in running:
                one.stop()
            shutil.rmtree(self.work, ignore_errors=True)

    def _start(self, waiting: deque[Graph], running: list[Compilation]) -> Iterator[str]:
        """Begin as many as may be. Without memory for another one, the one that runs goes on alone."""
        while waiting and len(running) < self.limits.jobs:
            if running and self.limits.available() < self.limits.gib:
                return
            graph = waiting.popleft()
            try:
                running.append(Compilation(graph, self.compiler, self.work))
            except Busy:
                self.busy.append(graph)
                yield f"{graph.key}: another process compiles it"
            except (OSError, ValueError) as error:
                self.failures[graph.key] = f"cannot be started: {error}"
                yield f"{graph.key}: cannot be started: {error}"


def _told(one: Compilation, why: str, again: bool, killed: bool, seconds: float) -> str:
    if not why:
        size = (one.graph.directory / NEFF).stat().st_size / 2**20
        return f"compiled in {seconds:.0f} s, {size:.1f} MiB"
    when = "alone, when the others have ended" if killed else "once more"
    return f"failed after {seconds:.0f} s ({why}){f'; tried again {when}' if again else ''}"
