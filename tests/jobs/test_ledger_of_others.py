"""A ledger that others have touched: strangers' files, makers who were killed, torn entries, those of a newer version.

A mark in open/ without an entry is what a process leaves that dies between the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.jobs.histories import ends
from tests.jobs.memory import Killed
from tests.jobs.pretended import NIGHTLY, Pretended, tick, ticker
from trainer.config.groups.job import JobScheduleConfig, JobStartConfig
from trainer.errors import ExitCode
from trainer.jobs.events import FAILED, PUBLISHED
from trainer.jobs.tick import TickError
from trainer.jobs.work import Job

FIRST = "20261001t003000z"
NIGHTS = Job("nightly", NIGHTLY)
DATA = Job("nightly", replace(NIGHTLY, schedule=JobScheduleConfig(new_data=True)))


@pytest.fixture
def world(tmp_path: Path) -> Pretended:
    return Pretended(tmp_path)


def until(world: Pretended, job: Job, minutes: int) -> Iterator[str]:
    """Ticks for so long."""
    for _ in range(minutes // 5):
        world.now += timedelta(minutes=5)
        yield from tick(world, job)


@pytest.mark.parametrize(
    "name",
    ["open/zzz.txt", "open/20261001t100000z-hand", "expanded/README", "decided/.DS_Store", "slots/notes/a.txt", "x"],
)
@pytest.mark.parametrize("job", [NIGHTS, DATA])
def test_a_file_of_somebody_else_changes_nothing(world: Pretended, job: Job, name: str) -> None:
    tick(world, NIGHTS)
    world.storage.write(f"ledger/nightly/{name}", b"hello")
    list(until(world, job, 300))
    world.storage.delete("ledger/nightly/slots/notes/a.txt")
    assert list(ends(world, job).values()) == [PUBLISHED]


def test_who_is_killed_behind_the_mark_of_new_data_has_lost_nothing(world: Pretended) -> None:
    def after(kind: str, path: str) -> None:
        if kind == "write" and "/open/" in path:
            world.storage.after = lambda kind, path: None
            raise Killed

    world.storage.after = after
    list(until(world, DATA, 300))
    assert list(ends(world, DATA).values()) == [PUBLISHED]


def test_data_that_could_not_even_be_prepared_are_due_once(world: Pretended) -> None:
    job = Job("nightly", replace(DATA.config, start=JobStartConfig(otherwise="refuse")))
    list(until(world, job, 120))
    assert list(ends(world, job).values()) == [FAILED]
    assert len(world.told) == 1
    world.data = "other data"
    list(until(world, job, 120))
    assert list(ends(world, job).values()) == [FAILED, FAILED]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"type": "paused", "time": "2026-10-01T00:00:00+00:00", "stage": "train"}',
    ],
)
def test_an_entry_that_nobody_here_has_written_holds_up_its_job_and_no_other(world: Pretended, text: bytes) -> None:
    tick(world, NIGHTS)
    list(until(world, NIGHTS, 60))
    number = ticker(world).ledger.occurrence("nightly", FIRST).count + 1
    path = f"ledger/nightly/slots/{FIRST}/{number:08}.json"
    world.storage.write(path, text)
    other = Job("other", DATA.config)
    for _ in range(100):
        world.now += timedelta(minutes=5)
        with pytest.raises(TickError) as raised:
            list(ticker(world).tick([NIGHTS, other], world.now))
        (problem,) = raised.value.problems
        assert (raised.value.code, problem.key, problem.value) == (ExitCode.DATA, "nightly: file", path)
    assert list(ends(world, other).values()) == [PUBLISHED]
    world.storage.delete(path)
    list(until(world, NIGHTS, 120))
    assert ends(world, NIGHTS)[FIRST] == PUBLISHED


def test_a_bug_in_one_job_is_shown_when_the_others_have_had_their_turn(
    world: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pretended.fingerprint

    def broken(self: Pretended, job: Job) -> str:
        if job.name == "broken":
            raise ZeroDivisionError
        return whole(self, job)

    monkeypatch.setattr(Pretended, "fingerprint", broken)
    for _ in range(40):
        world.now += timedelta(minutes=5)
        with pytest.raises(ZeroDivisionError):
            list(ticker(world).tick([Job("broken", DATA.config), DATA], world.now))
    assert list(ends(world, DATA).values()) == [PUBLISHED]


def test_a_day_to_begin_with_that_is_corrected_is_forgotten(world: Pretended) -> None:
    for begins, hours in (("2036-01-01", 24), ("2026-10-02", 20)):
        schedule = replace(NIGHTLY.schedule, cron="0 0 * * *", begins=begins)
        list(until(world, Job("nightly", replace(NIGHTLY, schedule=schedule)), 60 * hours))
    assert list(ends(world, NIGHTS)) == ["20261001t220000z"]  # midnight in Berlin, when the day begins


def test_no_secret_of_a_reason_is_written_or_printed(world: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hunter2hunter2")
    monkeypatch.setattr(Pretended, "exported", lambda *_: (_ for _ in ()).throw(OSError("no hunter2hunter2 here")))
    lines: list[str] = tick(world, NIGHTS)
    with suppress(TickError):
        lines += until(world, NIGHTS, 60 * 8)
    assert any("no *** here" in line for line in lines), lines
    assert not [path for path, data in world.storage.objects.items() if b"hunter2" in data]
    assert not [line for line in lines if "hunter2" in line]
    assert json.loads(world.storage.objects[f"ledger/nightly/decided/{FIRST}"])["end"] == FAILED
