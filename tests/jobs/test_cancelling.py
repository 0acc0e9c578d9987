"""A person cancels, at any moment: the occurrence ends once, and what it says is what the champion is."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.jobs.histories import ends, settle
from tests.jobs.memory import Killed
from tests.jobs.pretended import NIGHTLY, Pretended, registry_of, tick, ticker
from trainer.jobs.events import CANCELLED, PUBLISHED
from trainer.jobs.work import Job

JOB = Job("nightly", NIGHTLY)
SLOT = "20261001t003000z"
MOMENTS = 60
"""More than an occurrence has writes and deletions."""


def night(directory: Path, moment: int, dies: bool) -> tuple[str, bool, int]:
    """How a night ends that is cancelled before its n-th write, by a process that may die there; whether its version
    is champion; and how many writes there were."""
    directory.mkdir()
    world, count = Pretended(directory), 0

    def before(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        if count != moment:
            return
        one = ticker(world).ledger.occurrence(JOB.name, SLOT)
        if one.count and not one.decided:
            entry = {"type": "cancel", "by": "a person", "time": world.now.isoformat()}
            ticker(world).ledger.log(JOB.name, SLOT).append(entry, one.count)
        if dies:
            raise Killed

    tick(world, JOB)  # from here on the job is known
    world.storage.before = before
    for _ in range(40):
        world.now += timedelta(minutes=20)
        with suppress(Killed):
            tick(world, JOB)
    settle(world, JOB)
    assert all(one.cancelled or one.ends < world.now for one in world.submissions.values())
    return ends(world, JOB)[SLOT], registry_of(world, JOB).alias("champion").version is not None, count


@pytest.mark.parametrize("dies", [False, True])
def test_what_is_said_is_what_is(tmp_path: Path, dies: bool) -> None:
    seen = set()
    for moment in range(1, MOMENTS):
        end, champion, count = night(tmp_path / str(moment), moment, dies)
        assert end == (PUBLISHED if champion else CANCELLED), f"cancelled before write {moment}"
        seen.add(end)
        if moment > count:
            break
    assert seen == {PUBLISHED, CANCELLED}
    assert moment > count
