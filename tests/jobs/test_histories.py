"""Random histories of a nightly job: kills and stalls between any two writes, hosts that tick within others' ticks,
disks that fill, trainings that fail, people who cancel and roll back. Whatever happens, the invariants hold.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.jobs.histories import Reader, check, settle
from tests.jobs.memory import Killed, full
from tests.jobs.pretended import NIGHTLY, Pretended, registry_of, tick, ticker
from trainer.errors import ConfigError
from trainer.jobs.log import Conflict
from trainer.jobs.tick import TickError
from trainer.jobs.work import Job

JOB = Job("nightly", NIGHTLY)
BEGIN = datetime(2026, 10, 20, 20, tzinfo=timezone.utc)
TROUBLE = ("kill", "dead", "full", "other", "stall")
"""At a write: killed before it or behind it, no room for it, another host ticks first, this one sleeps through its
lease and another takes over."""


@dataclass
class Happening:
    """Minutes pass, perhaps backwards; somebody does something; a host ticks, with trouble at its n-th write."""

    minutes: int
    what: str
    host: str
    trouble: str
    at: int
    number: int


happenings = st.builds(
    Happening,
    minutes=st.sampled_from([-30, 5, 20, 60, 60, 240, 240, 600, 1500]),
    what=st.sampled_from(["nothing", "nothing", "data", "data", "cancel", "roll back", "codes"]),
    host=st.sampled_from(["host 1", "host 2", "host 3"]),
    trouble=st.sampled_from(["", "", *TROUBLE]),
    at=st.integers(1, 12),
    number=st.integers(0, 5),
)


@dataclass
class Hook:
    """What happens at the n-th write of a tick, once."""

    world: Pretended
    reader: Reader
    trouble: str = ""
    left: int = field(default=0)

    def before(self, kind: str, path: str) -> None:
        self.left -= 1
        if self.left or self.trouble in ("", "dead"):
            return
        trouble, self.trouble = self.trouble, ""
        if trouble == "kill":
            raise Killed
        if trouble == "full":
            full("write", path)
        self.world.now += timedelta(minutes=20 if trouble == "stall" else 0)
        with suppress(TickError):
            tick(self.world, JOB, "the other host")

    def after(self, kind: str, path: str) -> None:
        self.reader.look(kind, path)
        if self.trouble == "dead" and self.left <= 0:
            self.trouble = ""
            raise Killed


def somebody(world: Pretended, happening: Happening) -> None:
    """What people, data and trainings do."""
    if happening.what == "data":
        world.data = f"data {happening.number} of {world.now}"
    if happening.what == "codes":
        for night in range(25):
            time = (BEGIN + timedelta(days=night)).strftime("%Y%m%d")
            for hour in ("00", "01"):
                world.codes.setdefault(
                    f"{time}t{hour}3000z", [[11], [10], [12, 12], [1, 1, 1], [3], []][happening.number]
                )
    if happening.what == "cancel":
        ledger = ticker(world).ledger
        for slot in ledger.open_slots(JOB.name)[:1]:
            one = ledger.occurrence(JOB.name, slot)
            if one.count and not one.decided:
                entry = {"type": "cancel", "by": "a person", "time": world.now.isoformat()}
                ledger.log(JOB.name, slot).append(entry, one.count)
    if happening.what == "roll back":
        with suppress(ConfigError, Conflict):
            registry_of(world, JOB).roll_back("champion", world.now.isoformat(), "a person", "it is bad")


def live_through(history: list[Happening], losses: list[int], directory: Path) -> None:
    """The whole of it, and then peace; and everything that has to hold."""
    world = Pretended(directory, now=BEGIN)
    nights = [BEGIN.date() + timedelta(days=day) for day in range(40)]
    for night, loss in zip(nights, losses, strict=True):
        for hour in ("00", "01"):
            world.loss[f"{night:%Y%m%d}t{hour}3000z"] = loss / 10
    hook = Hook(world, Reader(world, JOB))
    world.storage.before, world.storage.after = hook.before, hook.after
    tick(world, JOB)  # from here on the job is known
    latest = world.now
    for happening in history:
        world.now += timedelta(minutes=happening.minutes)
        somebody(world, happening)
        hook.trouble, hook.left = happening.trouble, happening.at
        with suppress(TickError):
            tick(world, JOB, happening.host)
        latest = max(latest, world.now)
        hook.trouble = ""
    world.now = latest
    tick(world, JOB)
    settle(world, JOB)
    check(world, JOB, due(BEGIN, latest))


def due(begin: datetime, end: datetime) -> set[str]:
    """02:30 in Berlin: 00:30 UTC to the 25th of October, which has it twice and counts one; 01:30 from then on."""
    found = set()
    for day in range(60):
        midnight = datetime(2026, 10, 20, tzinfo=timezone.utc) + timedelta(days=day)
        summer = midnight <= datetime(2026, 10, 25, tzinfo=timezone.utc)
        slot = midnight + timedelta(hours=0 if summer else 1, minutes=30)
        if begin < slot <= end:
            found.add(f"{slot:%Y%m%dt%H%M%Sz}")
    return found


def explore(examples: int) -> None:
    """So many of them."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(happenings, min_size=5, max_size=40), st.lists(st.integers(1, 20), min_size=40, max_size=40))
    def one(history: list[Happening], losses: list[int]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            live_through(history, losses, Path(directory))

    one()


def test_random_histories() -> None:
    explore(30)


@pytest.mark.slow
@pytest.mark.long
def test_a_thousand_random_histories() -> None:
    explore(1000)
