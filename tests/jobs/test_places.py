"""Ledger and registry where people have them: a directory, and a bucket that answers badly now and then."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.jobs.pretended import NIGHTLY, Pretended
from trainer.errors import DataError
from trainer.jobs.events import PUBLISHED
from trainer.jobs.ledger import Ledger
from trainer.jobs.registry.fetch import fetched
from trainer.jobs.registry.versions import Registry
from trainer.jobs.stages import Stages
from trainer.jobs.tick import Ticker, TickError
from trainer.jobs.work import Job

if TYPE_CHECKING:
    from tests.s3 import Server

JOB = Job("nightly", NIGHTLY)


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "shared")
    return f"s3://{request.getfixturevalue('s3').bucket()}/below"


def test_a_night_in_a_directory_and_in_a_bucket(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def registry(job: Job) -> Registry:
        return Registry.at(f"{place}/registry", job.name)

    monkeypatch.setattr("tests.jobs.pretended.registry_of", lambda world, job: registry(job))
    (tmp_path / "exported").mkdir()
    world, ledger = Pretended(tmp_path / "exported"), Ledger.at(f"{place}/ledger/")
    for number in range(16):
        ticker = Ticker(ledger, Stages(world, ledger, registry), f"host {number % 2}")
        list(ticker.tick([JOB], world.now))
        world.now += timedelta(minutes=20)
    (slot,) = ledger.slots(JOB.name)
    one = ledger.occurrence(JOB.name, slot)
    assert (one.end, one.closed) == (PUBLISHED, True)
    assert ledger.open_slots(JOB.name) == []
    assert list(ledger.decided(JOB.name)) == [slot]
    version = registry(JOB).alias("champion").version
    assert version == f"nightly-{slot}"
    assert registry(JOB).versions() == [version]
    here = fetched(registry(JOB), version, tmp_path / "cache")
    assert (here / "config.json").read_text() == f"config.json of {slot}"
    registry(JOB).remove(version)
    assert registry(JOB).versions() == []


def test_a_bucket_that_answers_badly_ends_no_occurrence(s3: Server, tmp_path: Path) -> None:
    place = f"s3://{s3.bucket()}/below"
    ledger = Ledger.at(f"{place}/ledger")
    world = Pretended(tmp_path)

    def bad(method: str, path: str, number: int) -> str | None:
        return "403" if method == "PUT" and number % 7 == 3 else None

    ticker = Ticker(ledger, Stages(world, ledger, lambda job: Registry(world.storage, "registry")), "host")
    with s3.failing(bad):
        for _ in range(40):
            with suppress(TickError):
                list(ticker.tick([JOB], world.now))
            world.now += timedelta(minutes=20)
    for _ in range(20):
        list(ticker.tick([JOB], world.now))
        world.now += timedelta(minutes=20)
    (slot,) = ledger.slots(JOB.name)
    assert ledger.occurrence(JOB.name, slot).end == PUBLISHED
    assert world.overlaps == []


def test_a_look_finds_what_would_end_an_occurrence_and_keeps_nothing(tmp_path: Path) -> None:
    world = Pretended(tmp_path)
    ledger = Ledger(world.storage, "ledger")
    stages = Stages(world, ledger, lambda job: Registry(world.storage, "registry/nightly"))
    found = stages.looked(JOB, world.now)
    assert found["start"]["why"] == "from what the recipe starts from"
    assert found["fingerprint"] == world.fingerprint(JOB)
    for call in ("resolve", "check"):
        world.refuses = call
        with pytest.raises(DataError, match=call):
            stages.looked(JOB, world.now)
    assert list(world.storage.list("")) == []
