"""What has happened to an occurrence, a sentence for each entry of its log: for whoever asks why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from trainer.jobs.events import BEGAN, BROKEN, DONE, LOST, SEEN, SKIPPED, SUBMITTED, Occurrence
from trainer.printable import printable

TRIGGERS = {
    "cron": "its time in the schedule",
    "after": "the end of another occurrence",
    "data": "new data",
    "hand": "a person's wish",
}


def explain(occurrence: Occurrence, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines: when, and what. The last one says how it has ended, or what it waits for."""
    for entry in entries:
        if text := sentence(entry):
            yield printable(f"{shown(entry['time'])}  {text}")
    if not occurrence.decided:
        stage = occurrence.stages[occurrence.current]
        reason = f": {stage.reason}" if stage.reason else ""
        yield printable(f"{'now':<16}  {occurrence.current} is {stage.state}{reason}")


def sentence(entry: Mapping[str, Any]) -> str:
    """Of one entry; empty for what nobody asks about."""
    kind, stage = entry["type"], entry.get("stage", "")
    if kind == "due":
        by = f" ({entry['by']})" if entry.get("by") else ""
        return f"due by {TRIGGERS.get(entry['trigger'], entry['trigger'])}{by}"
    if kind == BEGAN:
        again = f", attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
        return f"{stage} begins{again}, on {entry['holder']}"
    if kind == SUBMITTED:
        return f"{stage} is submitted as {entry['id']}"
    if kind == DONE:
        return f"{stage} is done" + (f": {entry['reason']}" if entry.get("reason") else "")
    if kind == SKIPPED:
        return f"{stage} is not needed: {entry['reason']}"
    if kind in (LOST, SEEN):
        return f"nobody knows what {stage} is doing: {entry['reason']}" if kind == LOST else f"{stage} is known again"
    if kind == BROKEN:
        return _failure(entry)
    if kind == "cancel":
        return f"{entry['by']} wants it cancelled"
    if kind == "decided":
        return f"{entry['end']} (exit {entry['code']}): {entry['why']}"
    return ""


def _failure(entry: Mapping[str, Any]) -> str:
    if entry.get("again"):
        return f"{entry['stage']} sends it back to {entry['again'][0]}: {entry['reason']}"
    when = f"it is tried again at {shown(entry['retry_at'])}" if entry["retry_at"] else "it is not tried again"
    return f"{entry['stage']} failed (exit {entry['code']}): {entry['reason']}; {when}"


def shown(time: str) -> str:
    """A time for people, to the minute, in UTC."""
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}"


def duration(occurrence: Occurrence) -> str:
    """From its first entry to its last."""
    if len(occurrence.times) < 2:
        return ""
    seconds = int(max(timedelta(), occurrence.times[-1] - occurrence.times[0]).total_seconds())
    return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"
