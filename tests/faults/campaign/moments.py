"""Instants of a launch, drawn at random, and what was under way when one came."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.campaign.settings import EVALUATED, KEEP, MILESTONE

if TYPE_CHECKING:
    from tests.faults.campaign.launches import Launch  # brings torch

SPANS = {"launch": 3.0, "data": 0.5, "step": 0.6, "evaluation": 0.02, "save": 0.12, "rename": 0.006, "retention": 0.006}
"""What an instant may follow, and by how many seconds at most: about as long as that takes on two idle cores."""
SAVING = ("save", "rename", "retention")
CACHE = "cache"
"""Below run.root: the caches of launches that prepare their text anew."""
_STEP = re.compile(r"^step +(\d+)/\d+  (loss|held-out)", re.MULTILINE)
BEGINS = re.compile(r"^(?:resuming run from step|starting run at step) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Look:
    """A run's checkpoints directory at an instant.

    saving, removing: unfinished saves and removals, each by name, inode and time. steps: of checkpoints, newest first.
    latest: what LATEST says. reading: text is prepared, into a cache of the run's own.
    """

    saving: frozenset[tuple[str, int, int]] = frozenset()
    removing: frozenset[tuple[str, int, int]] = frozenset()
    steps: tuple[int, ...] = ()
    latest: str = ""
    reading: bool = False


def look(run: Path) -> Look:
    """Take a look; what vanishes meanwhile is not seen."""
    found: dict[str, set[tuple[str, int, int]]] = {".saving-": set(), ".removing-": set()}
    steps, latest = [], ""
    with suppress(FileNotFoundError), os.scandir(run / "checkpoints") as entries:
        for entry in entries:
            if entry.name.startswith("step-"):
                steps.append(int(entry.name[5:]))
            for prefix, into in found.items():
                if entry.name.startswith(prefix):
                    with suppress(FileNotFoundError):
                        about = entry.stat()
                        into.add((entry.name, about.st_ino, about.st_mtime_ns))
    with suppress(FileNotFoundError):
        latest = (run / "checkpoints" / "LATEST").read_text().strip()
    reading = any((run.parent / CACHE).glob("*/.tmp-*"))
    return Look(*map(frozenset, found.values()), tuple(sorted(steps, reverse=True)), latest, reading)


def moment(before: Look, now: Look, said: str) -> str:
    """What was under way. before: the launch began. said: by the launch until now."""
    if now.removing - before.removing:
        return "retention"
    if now.steps and now.steps[:1] != before.steps[:1]:
        if now.latest != f"step-{now.steps[0]:08d}":
            return "rename"
        if _surplus(now):
            return "retention"
    if now.saving - before.saving:
        return "save"
    if lines := _STEP.findall(said):
        number, kind = lines[-1]
        return "evaluation" if kind == "loss" and int(number) % EVALUATED == 0 else "step"
    return "data" if now.reading else "set-up"


def _surplus(now: Look) -> bool:
    """Whether there is a checkpoint that retention is about to remove."""
    return any(step % MILESTONE for step in now.steps[KEEP:])


@dataclass(frozen=True)
class Instant:
    """So many seconds after something has happened for the so many-th time in a launch."""

    after: str
    count: int
    seconds: float

    @classmethod
    def drawn(cls, draw: random.Random, after: str, most: int = 3) -> Instant:
        """A random one after a kind of event. most: times that it may have happened."""
        return cls(after, draw.randint(1, most), draw.uniform(0, SPANS[after]))

    def come(self, launch: Launch, run: Path, before: Look) -> bool:
        """Wait for it; False where the launch has ended before."""
        return (
            launch.watch(launch.begun)
            and launch.watch(self._happened(launch, run, before))
            and launch.sleep(self.seconds)
        )

    def _happened(self, launch: Launch, run: Path, before: Look) -> Callable[[], bool]:
        seen: set[object] = set()

        def happened() -> bool:
            if self.after in ("launch", "data"):
                return self.after == "launch" or look(run).reading
            if self.after in ("step", "evaluation"):
                steps = [int(number) for number, kind in _STEP.findall(launch.output) if kind == "loss"]
                if self.after == "evaluation":
                    return any(step % EVALUATED == 0 for step in steps)
                return len(steps) >= self.count
            now = look(run)
            if self.after == "save":
                seen.update(name for name, *_ in now.saving - before.saving)
            elif self.after == "rename" or _surplus(now) or now.removing - before.removing:
                seen.update(now.steps[:1] if now.steps[:1] != before.steps[:1] else ())
            return len(seen) >= self.count

        return happened
