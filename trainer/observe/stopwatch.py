"""Where a step's time goes: data, compute, and whatever else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Laps of one step. ``lap(name)`` charges the time since the last mark to a name; ``close`` ends the step."""

    _mark: float = field(default_factory=time.perf_counter)
    _start: float = field(default_factory=time.perf_counter)
    _laps: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Begin a step; time since the last one (evaluation, saving) is nobody's."""
        self._start = self._mark = time.perf_counter()
        self._laps = {}

    def lap(self, name: str) -> None:
        """Charge the time since the last mark."""
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._mark
        self._mark = now

    def close(self) -> tuple[float, float, float, float]:
        """Seconds of the step: total, data, compute, other."""
        total = time.perf_counter() - self._start
        data, compute = self._laps.get("data", 0.0), self._laps.get("compute", 0.0)
        return total, data, compute, total - data - compute
