"""Where a step's time goes: data, compute, and whatever else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple


class StepSeconds(NamedTuple):
    """Where the seconds of one step went."""

    total: float
    data: float
    compute: float
    other: float


@dataclass
class Stopwatch:
    """Laps of a step, one step after another without a gap: writing a step's record is on the next step's clock.

    ``lap(name)`` charges the time since the last mark to a name, ``close`` ends the step and begins the next, and
    ``exclude`` takes evaluation and saving off the clock.
    """

    _mark: float = field(default_factory=time.perf_counter)
    _start: float = field(default_factory=time.perf_counter)
    _laps: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        """Charge the time since the last mark."""
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._mark
        self._mark = now

    def charge_rest(self) -> None:
        """Move the mark without charging anybody: the time since the last one is "other"."""
        self._mark = time.perf_counter()

    def exclude(self, seconds: float) -> None:
        """Take time off the clock."""
        self._start += seconds
        self._mark += seconds

    def close(self) -> StepSeconds:
        """End the step."""
        now = time.perf_counter()
        total, data, compute = now - self._start, self._laps.get("data", 0.0), self._laps.get("compute", 0.0)
        self._start = self._mark = now
        self._laps = {}
        return StepSeconds(total, data, compute, other=total - data - compute)
