"""A month of a nightly LoRA job, on a clock of ours, across the end of daylight saving, with everything going wrong."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.jobs.histories import Reader, check, settle
from tests.jobs.memory import full
from tests.jobs.pretended import NIGHTLY, Pretended, registry_of, tick
from trainer.jobs.events import FAILED, MISSED, PUBLISHED, REJECTED, UNCHANGED
from trainer.jobs.tick import TickError
from trainer.jobs.work import Job

JOB = Job("nightly", NIGHTLY)


def slot(day: int) -> str:
    """02:30 in Berlin, October 2026: two hours ahead of UTC, and one from the 25th on, whose 02:30 comes twice."""
    return f"202610{day:02}t{'00' if day <= 25 else '01'}3000z"


DAYS = range(1, 32)
LOSS = {slot(day): 2.0 - 0.02 * day for day in DAYS}
"""Each night's model is better than those before it, but for these."""
LOSS[slot(3)] = 5.0  # a gate fails
LOSS[slot(5)] = LOSS[slot(4)]  # a tie
KILLS = {
    6: "resolve",
    7: "check",
    8: "submit/precompile",
    9: "submit/train",
    10: "submit/evaluate",
    12: "submit/export",
    13: "tell",
}
"""Days on which the process that ticks is gone in the middle of that."""
WANTED = dict.fromkeys(DAYS, PUBLISHED) | {
    3: REJECTED,
    5: REJECTED,
    11: UNCHANGED,  # no new data
    14: MISSED,  # no ticks until the next one is due
    18: FAILED,  # the training is out of its mind: exit 11
}


def minute(world: Pretended) -> tuple[int, int, int]:
    return world.now.day, world.now.hour, world.now.minute


def live(world: Pretended) -> None:
    """One step of ten minutes: what goes wrong at this hour, and the ticks of up to three hosts."""
    day, hour, now = minute(world)
    if hour == 0 and 20 <= now < 30 and day != 11:
        world.data = f"data of day {day}"
    world.dies_at = KILLS.get(day, "") if (hour, now) == (0, 0) else world.dies_at
    world.storage.before = full if day == 16 and 1 <= hour < 9 else lambda kind, path: None
    if day == 17:  # the registry alone refuses, until the evening
        world.storage.before = lambda kind, path: (
            full(kind, path) if path.startswith("registry/") and hour < 6 else None
        )
    if datetime(2026, 10, 13, 12) < world.now.replace(tzinfo=None) < datetime(2026, 10, 15, 0, 45):
        return  # nobody ticks
    for host in ("host 1", "host 2", "host 3")[: 3 if day % 2 else 1]:
        with suppress(TickError):  # a tick that could not write; cron starts the next one
            tick(world, JOB, host)


def test_every_night_ends_once_in_the_right_way(tmp_path: Path) -> None:
    world = Pretended(tmp_path, now=datetime(2026, 9, 30, 20, tzinfo=timezone.utc), loss=dict(LOSS))
    world.codes = {slot(18): [11], slot(19): [10, 10, 12, 1]}
    reader = Reader(world, JOB)
    world.storage.after = reader.look
    while world.now < datetime(2026, 10, 31, 23, tzinfo=timezone.utc):
        live(world)
        world.now += timedelta(minutes=10)
        if (world.now.day, world.now.hour, world.now.minute) == (20, 1, 0):
            world.now -= timedelta(minutes=50)  # somebody sets the clock; once, or it would never be two
            world.now = world.now.replace(minute=11)
    settle(world, JOB)
    found = check(world, JOB, {slot(day) for day in DAYS})
    assert found == {slot(day): end for day, end in WANTED.items()}
    champions = [f"nightly-{slot(day)}" for day, end in WANTED.items() if end == PUBLISHED]
    assert reader.seen == champions
    assert registry_of(world, JOB).alias("champion").version == champions[-1]
