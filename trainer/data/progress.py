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
def track(title: str, total: int | None, report: Report | None) -> Iterator[Advance]:
    """Yields a function to call with the bytes just done. total: all bytes, None if unknown."""
    if report is None:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total, report)


@contextlib.contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def _lines(title: str, total: int | None, report: Report) -> Advance:
    done, told = 0, time.monotonic()

    def advance(amount: int) -> None:
        nonlocal done, told
        done += amount
        if time.monotonic() - told >= LINE_EVERY_SECONDS:
            told = time.monotonic()
            report(f"{title}: {done / 1e6:,.1f} MB" + (f" of {total / 1e6:,.1f} MB" if total else ""))

    return advance
