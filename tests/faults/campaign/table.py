"""What a kind of fault came to: a row of the campaign's table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HEAD = ("fault", "instants", "count", "exit codes", "resumed from", "bitwise", "seconds")


@dataclass
class Row:
    """Of one kind of fault.

    wanted: how many faults there have to be. instants: what was under way, how often. codes: of the ranks of a launch,
    how often. resumed: steps that launches after a fault went on from. compared: runs that ended, and were compared
    with one that nobody disturbed.
    """

    fault: str
    wanted: int = 1
    instants: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    resumed: set[int] = field(default_factory=set)
    compared: int = 0
    differ: int = 0
    complaints: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Faults injected."""
        return self.instants.total()

    def add(self, instant: str, codes: Mapping[int, int]) -> None:
        """A fault, and how the ranks of its launch ended."""
        self.instants[instant] += 1
        self.codes[" ".join(str(codes[rank]) for rank in sorted(codes))] += 1
        self.seconds = time.monotonic() - self.begun

    def compare(self, differences: Iterable[str]) -> None:
        """The end of a run."""
        found = list(differences)
        self.compared += 1
        self.differ += bool(found)
        self.complaints += [f"not bitwise: {each}" for each in found]
        self.seconds = time.monotonic() - self.begun

    @property
    def passed(self) -> bool:
        """Whether every fault ended as documented, and every run as if there had been none."""
        return self.count >= self.wanted and bool(self.compared) and not self.complaints

    def cells(self) -> tuple[str, ...]:
        """In the order of HEAD."""
        steps = sorted(self.resumed)
        return (
            self.fault,
            _counted(self.instants),
            str(self.count),
            _counted(self.codes),
            f"{len(steps)} steps, {steps[0]} to {steps[-1]}" if len(steps) > 3 else ", ".join(map(str, steps)),
            f"yes ({self.compared} runs)" if self.compared and not self.differ else f"NO ({self.differ})",
            f"{self.seconds:.0f}",
        )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in sorted(counter.items()))


def table(rows: Iterable[Row]) -> str:
    """In Markdown; what went wrong below it."""
    rows = list(rows)
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    complaints = [f"{row.fault}: {complaint}" for row in rows for complaint in row.complaints]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", *complaints]).rstrip()
