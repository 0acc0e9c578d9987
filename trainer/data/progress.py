"""Progress of a task: a bar on a terminal, plain lines elsewhere, nothing on ranks without a report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Report = Callable[[str], None]
Advance = Callable[[int], None]
LINE_EVERY_SECONDS = 10.0


@contextlib.contextmanager
def track(title: str, total: int | None, report: Report | None, unit: str | None = None) -> Iterator[Advance]:
    """Yields a function to call with what was just done. total: of all, None if unknown. unit: of both; None: bytes."""
    if report is None:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield _lines(title, total, report, unit)


@contextlib.contextmanager
def _bar(title: str, total: int | None, unit: str | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # A title may hold what rich takes for its own markup: a file's name with brackets.
    said = TextColumn("{task.description}", markup=False)
    done = DownloadColumn() if unit is None else MofNCompleteColumn()
    columns = (said, BarColumn(), done, TextColumn(unit or "", markup=False), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def _lines(title: str, total: int | None, report: Report, unit: str | None) -> Advance:
    done, began = 0, time.monotonic()
    told = began

    def advance(amount: int) -> None:
        nonlocal done, told
        done += amount
        now = time.monotonic()
        if now - told >= LINE_EVERY_SECONDS:
            told = now
            left = f", {_duration((total - done) * (now - began) / done)} left" if total and 0 < done < total else ""
            report(f"{title}: {_amount(done, unit)}" + (f" of {_amount(total, unit)}{left}" if total else ""))

    return advance


def _amount(count: int, unit: str | None) -> str:
    return f"{count / 1e6:,.1f} MB" if unit is None else f"{count:,} {unit}"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
