"""Single troubles, each with the end that it has to have."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.histories import ends
from tests.jobs.pretended import NIGHTLY, Pretended, registry_of, tick, ticker
from trainer.config.groups.job import JobLimitsConfig, JobRetentionConfig, JobScheduleConfig, JobStartConfig
from trainer.jobs.events import CANCELLED, FAILED, MISSED, PUBLISHED, REJECTED
from trainer.jobs.expand import BY_HAND, make
from trainer.jobs.explain import explain
from trainer.jobs.work import Job

FIRST = "20261001t003000z"


@pytest.fixture
def world(tmp_path: Path) -> Pretended:
    return Pretended(tmp_path)


def until(world: Pretended, job: Job, minutes: int, step: int = 5, host: str = "host 1") -> list[str]:
    """Ticks for so long."""
    lines = []
    for _ in range(minutes // step):
        world.now += timedelta(minutes=step)
        lines += tick(world, job, host)
    return lines


def nightly(**more: Any) -> Job:
    return Job("nightly", replace(NIGHTLY, **more))


def why(world: Pretended, slot: str = FIRST) -> str:
    ledger = ticker(world).ledger
    entries = ledger.log("nightly", slot).read()
    return "\n".join(explain(ledger.occurrence("nightly", slot), entries))


def test_a_scheduler_that_is_silent_for_half_an_hour_costs_nothing(world: Pretended) -> None:
    job = nightly()
    tick(world, job)
    until(world, job, 60)
    world.silent = True
    until(world, job, 30)
    world.silent = False
    until(world, job, 180)
    assert ends(world, job) == {FIRST: PUBLISHED}
    assert "nobody knows what train is doing: the scheduler does not answer" in why(world)
    assert len([name for name in world.submissions if "train" in name]) == 1


def test_one_that_is_silent_for_long_is_asked_anew(world: Pretended) -> None:
    job = nightly()
    tick(world, job)
    until(world, job, 60)
    world.silent = True
    until(world, job, 90)
    world.silent = False
    until(world, job, 240)
    assert ends(world, job) == {FIRST: PUBLISHED}
    assert "nobody has known" in why(world)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (JobLimitsConfig(minutes=30), "limits.minutes = 30 is used up"),
        (JobLimitsConfig(money=10.0), "limits.money = 10 is used up"),  # 20 an hour
        (JobLimitsConfig(steps=39), "the recipe trains 40"),
    ],
)
def test_what_uses_more_than_it_may_is_cancelled_and_has_failed(
    world: Pretended, limits: JobLimitsConfig, says: str
) -> None:
    job = nightly(limits=limits)
    tick(world, job)
    until(world, job, 180)
    assert ends(world, job) == {FIRST: FAILED}
    assert says in why(world)
    assert all(one.cancelled for one in world.submissions.values() if one.stage == "train")


def test_within_its_limits_it_is_published(world: Pretended) -> None:
    job = nightly(limits=JobLimitsConfig(minutes=70, money=25.0, steps=40))
    tick(world, job)
    until(world, job, 180)
    assert ends(world, job) == {FIRST: PUBLISHED}


def test_a_slot_beyond_its_deadline_is_missed(world: Pretended) -> None:
    job = nightly(schedule=JobScheduleConfig(cron="30 2 * * *", time_zone="Europe/Berlin", deadline_minutes=45))
    tick(world, job)
    world.now += timedelta(hours=3)
    until(world, job, 60)
    assert ends(world, job) == {FIRST: MISSED}
    assert "within 45 minutes" in why(world)


def test_a_person_cancels_a_training(world: Pretended) -> None:
    job = nightly()
    tick(world, job)
    until(world, job, 60)
    ledger = ticker(world).ledger
    one = ledger.occurrence("nightly", FIRST)
    ledger.log("nightly", FIRST).append({"type": "cancel", "by": "a person", "time": world.now.isoformat()}, one.count)
    until(world, job, 10)
    assert ends(world, job) == {FIRST: CANCELLED}
    assert all(one.cancelled for one in world.submissions.values() if one.stage == "train")
    assert "a person" in why(world)


def test_preempted_ten_times_it_goes_on(world: Pretended) -> None:
    job = nightly()
    world.codes = {FIRST: [10] * 10}
    tick(world, job)
    until(world, job, 60 * 16)
    assert ends(world, job) == {FIRST: PUBLISHED}
    assert len([name for name in world.submissions if "train" in name]) == 11


@pytest.mark.parametrize(("code", "tries"), [(3, 1), (4, 1), (11, 1), (12, 4), (13, 2), (15, 3), (1, 3), (137, 3)])
def test_each_code_has_its_tries(world: Pretended, code: int, tries: int) -> None:
    job = nightly()
    world.codes = {FIRST: [code] * 10}
    tick(world, job)
    until(world, job, 60 * 8)
    assert ends(world, job) == {FIRST: FAILED}
    assert len([name for name in world.submissions if "train" in name]) == tries
    assert ticker(world).ledger.occurrence("nightly", FIRST).code == code


def test_what_started_from_a_model_that_was_rolled_back_is_refused(world: Pretended) -> None:
    job = nightly()
    world.loss = {FIRST: 2.0, "20261002t003000z": 1.9, "20261003t003000z": 1.8}
    tick(world, job)
    for day in (1, 2):
        world.data = f"day {day}"
        until(world, job, 60 * 24 if day == 1 else 60 * 12, step=20)
    world.data = "day 3"
    while not any("train" in name and "20261003" in name for name in world.submissions):
        until(world, job, 20, step=20)
    registry_of(world, job).roll_back("champion", world.now.isoformat(), "a person", "rude")
    until(world, job, 240)
    found = ends(world, job)
    assert found["20261003t003000z"] == REJECTED
    assert "was rolled back" in why(world, "20261003t003000z")
    assert registry_of(world, job).alias("champion").version == f"nightly-{FIRST}"


def test_a_version_that_a_job_starts_from_by_its_name_is_kept(world: Pretended) -> None:
    world.loss = {f"2026100{day}t003000z": 2.0 - day / 10 for day in range(1, 9)}
    first = f"nightly-{FIRST}"
    for day in range(5):
        start = JobStartConfig(model=first) if day else JobStartConfig()
        job = nightly(start=start, retention=JobRetentionConfig(versions=1), overrides=[f"optim.lr={day}"])
        world.data = f"day {day}"
        tick(world, job)
        until(world, job, 60 * 24, step=20)
    assert set(ends(world, job).values()) == {PUBLISHED}
    registry = registry_of(world, job)
    assert registry.versions()[0] == first
    record = registry.record(registry.versions()[-1])
    assert record is not None
    assert (record["parent"], record["recipe"]["overrides"]) == (first, ["optim.lr=4"])


def test_two_jobs_of_which_one_follows_the_other(world: Pretended) -> None:
    first = nightly()
    second = Job("later", replace(NIGHTLY, schedule=JobScheduleConfig(after="nightly"), gates=[], sets=[]))
    for _ in range(80):
        world.now += timedelta(minutes=10)
        list(ticker(world).tick([second, first], world.now))
    assert ends(world, first) == {FIRST: PUBLISHED}
    assert ends(world, second) == {f"{FIRST}-after": PUBLISHED}


def test_new_data_are_one_occurrence_whoever_sees_them_first(world: Pretended) -> None:
    job = nightly(schedule=JobScheduleConfig(new_data=True))
    for minute in range(40):
        world.now += timedelta(minutes=10)
        world.data = "other data" if minute == 25 else world.data
        for host in ("host 1", "host 2"):
            tick(world, job, host)
    until(world, job, 240)
    assert len(ends(world, job)) == 2


def test_a_wish_of_a_person_is_not_missed_for_a_slot(world: Pretended) -> None:
    job = nightly()
    tick(world, job)
    world.now = datetime.fromisoformat("2026-10-01T00:29:00+00:00")
    make(ticker(world).ledger, "nightly", "20261001t002900z-hand", BY_HAND, world.now, world.now, by="a person")
    world.now += timedelta(minutes=2)
    until(world, job, 60 * 8)
    assert ends(world, job)["20261001t002900z-hand"] == PUBLISHED
