"""What a tick reads does not grow with what has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.jobs.histories import settle
from tests.jobs.memory import Memory
from tests.jobs.pretended import NIGHTLY, Pretended, tick
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
