"""Slots of a cron expression on the wall clock of a time zone.

Daylight saving, as Debian's cron has it: a time that the clock leaps over is due at the instant it leaps to, once; a
time that the clock shows twice is due the first time only. An expression whose minute or hour is a step or a star
(*/30 * * * *) follows the real time instead: it is due in both of the hours that bear one name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

LONGEST_CATCH_UP = 10_000
"""Slots of one expansion: a minutely job whose ticks were off for a week."""


def zone_of(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, ../.., a directory
        return None


def fault_of(cron: str) -> str | None:
    """What is wrong with an expression; None where nothing is, and it is due again within fifty years."""
    if len(cron.split()) != 5:
        return "has five fields: minute, hour, day of month, month, day of week"
    try:
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=timezone.utc)))
    except CronSimError as error:
        return f"is an expression of cron: {error}"
    except StopIteration:
        return "is due some day: this date does not exist"
    return None


def slots(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """Times at which the expression is due, in UTC: later than ``after``, and ``until`` at the latest. Both aware.

    At most LONGEST_CATCH_UP of them.
    """
    due = CronSim(cron, after.astimezone(zone))
    for _ in range(LONGEST_CATCH_UP):
        slot = next(due, None)
        if slot is None or slot > until:
            return
        yield slot.astimezone(timezone.utc)


def label(slot: datetime) -> str:
    """The slot's name in ledgers: sorts by time, and may stand in the names of files, jobs and runs."""
    return slot.astimezone(timezone.utc).strftime("%Y%m%dt%H%M%Sz")
