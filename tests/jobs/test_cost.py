"""What a tick reads does not grow with what has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.jobs.histories import settle
from tests.jobs.memory import Memory
from tests.jobs.pretended import NIGHTLY, Pretended, tick, ticker
from trainer.commands.jobs.people import listed
from trainer.jobs.expand import make
from trainer.jobs.work import Job
from trainer.storage.base import Stored

JOB = Job("nightly", NIGHTLY)


@dataclass
class Counting(Memory):
    """Counts what is looked at: each entry of a listing, and each read."""

    looked: int = 0

    def list(self, prefix: str) -> Iterator[Stored]:
        for stored in super().list(prefix):
            self.looked += 1
            yield stored

    def read(self, stored: Stored, offset: int, size: int) -> bytes:
        self.looked += 1
        return super().read(stored, offset, size)


def test_ls_looks_at_no_entry_of_what_it_does_not_show(tmp_path: Path) -> None:
    world = Pretended(tmp_path, storage=Counting())
    ledger = ticker(world).ledger
    looked = []
    for nights in (20, 400):
        for night in range(nights):
            slot = f"20{nights // 10:02}{night // 28 % 12 + 1:02}{night % 28 + 1:02}t003000z"
            time = datetime(2026, 1, 1, tzinfo=timezone.utc)
            make(ledger, JOB.name, slot, "cron", time, time)
        world.storage.looked = 0  # type: ignore[attr-defined]
        assert len(list(listed(ledger, [JOB], 5))) == 6
        looked.append(world.storage.looked)  # type: ignore[attr-defined]
    assert looked == [10, 10]  # five occurrences of one entry each: listed, and read


def test_an_idle_tick_looks_at_as_much_after_500_nights_as_after_100(tmp_path: Path) -> None:
    storage = Counting()
    world = Pretended(tmp_path, storage=storage)
    looked = []
    tick(world, JOB)
    for nights in (100, 400):
        for _ in range(nights):
            world.now += timedelta(days=1)
            world.data = f"data of {world.now}" if world.now.day == 1 else world.data
            tick(world, JOB)
        settle(world, JOB)
        tick(world, JOB)  # what became due while the last ones ended
        settle(world, JOB)
        storage.looked = 0
        tick(world, JOB)
        looked.append(storage.looked)
    assert looked[0] == looked[1] < 120
