"""What scripts/jobs.py ls and registry tell before anything has happened."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.jobs.pretended import NIGHTLY
from trainer.commands.jobs.people import coming, listed, started, versions
from trainer.config.groups.job import JobScheduleConfig
from trainer.jobs.ledger import Ledger
from trainer.jobs.registry.versions import Registry
from trainer.jobs.work import Job

NOW = datetime(2026, 3, 28, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (JobScheduleConfig(cron="30 4 * * *", time_zone="Europe/Berlin"), "next 2026-03-29 04:30"),
        (JobScheduleConfig(cron="30 2 * * *", time_zone="Europe/Berlin"), "next 2026-03-29 03:00"),  # the clock leaps
        (JobScheduleConfig(cron="0 8 * * *", time_zone="America/New_York"), "next 2026-03-29 08:00"),  # it is 8:00 now
        (JobScheduleConfig(cron="0 2 * * *", begins="2026-06-01"), "next 2026-06-01 02:00"),
        (JobScheduleConfig(cron="0 2 29 2 *"), "none within 366 days"),
        (JobScheduleConfig(after="other"), "next when a tick finds it due"),
    ],
)
def test_when_the_next_occurrence_comes(schedule: JobScheduleConfig, said: str) -> None:
    assert coming(Job("nightly", replace(NIGHTLY, schedule=schedule)), NOW) == said
    assert coming(Job("nightly", replace(NIGHTLY, schedule=schedule, enabled=False)), NOW) == "not enabled"


def test_nothing_has_happened_yet(tmp_path: Path) -> None:
    (line,) = listed(Ledger.at(str(tmp_path / "jobs")), [Job("nightly", NIGHTLY)], 5)
    assert line.startswith("nightly: 30 2 * * * in Europe/Berlin; 0 occurrences; next ")
    place = str(tmp_path / "registry")
    assert list(versions(Registry.at(place, "assistant"))) == [f"no version is published yet in {place}/assistant"]


def test_two_wishes_within_a_second_are_two_occurrences(tmp_path: Path) -> None:
    """The second one got the first one's end as its own answer."""
    ledger, job = Ledger.at(str(tmp_path / "jobs")), Job("nightly", NIGHTLY)
    assert ledger.slots("nightly") == []
    made = [started(ledger, job, "a"), started(ledger, job, "b")]
    assert ledger.slots("nightly") == made
    assert [ledger.occurrence("nightly", slot).due["by"] for slot in made] == ["a", "b"]
