"""A desk without machines: trainings that take an hour of a clock of ours, and end as a script says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.jobs.memory import Killed, Memory
from trainer.config.groups.job import JobConfig, JobGateConfig, JobScheduleConfig, JobSetConfig
from trainer.errors import DataError, Problem
from trainer.jobs.desk import ALIVE, GONE, OVER, Condition, Resolved
from trainer.jobs.events import Occurrence
from trainer.jobs.ledger import Ledger
from trainer.jobs.registry.versions import Registry
from trainer.jobs.stages import Stages
from trainer.jobs.tick import Ticker
from trainer.jobs.work import Job

TAKES = {"train": 60, "precompile": 10, "evaluate": 5, "export": 2}
"""Minutes."""
NIGHTLY = JobConfig(
    recipe="smollm2_lora",
    schedule=JobScheduleConfig(cron="30 2 * * *", time_zone="Europe/Berlin"),
    sets=[JobSetConfig(name="frozen", paths=["frozen.jsonl"])],
    gates=[JobGateConfig(name="better", kind="champion", set="frozen")],
)


@dataclass
class Submission:
    """One thing at the scheduler."""

    stage: str
    slot: str
    began: datetime
    ends: datetime
    code: int
    cancelled: bool = False


@dataclass
class Pretended:
    """The world around jobs, shared by all hosts. loss: of each slot's model on the frozen set."""

    directory: Path
    now: datetime = datetime(2026, 10, 1, tzinfo=timezone.utc)
    data: str = "data 0"
    loss: dict[str, float] = field(default_factory=dict)
    codes: dict[str, list[int]] = field(default_factory=dict)
    """Exit codes of a slot's trainings, one after another; 0 when there are no more."""
    submissions: dict[str, Submission] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    dies_at: str = ""
    """A call, submit/train say, after which the process that made it is gone."""
    silent: bool = False
    """The scheduler does not answer."""
    refuses: str = ""
    """A call that fails."""

    def fingerprint(self, job: Job) -> str:
        return hashlib.sha256(self.data.encode()).hexdigest()

    def resolve(self, job: Job) -> Resolved:
        self._at("resolve")
        return Resolved("recipe hash", self.fingerprint(job), {"kind": "lora", "rank": 8}, 40, 20.0, True)

    def check(self, job: Job, occurrence: Occurrence) -> Mapping[str, Any]:
        self._at("check")
        return {}

    def submit(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str:
        self.storage.before("submit", name)  # time passes between looking for a name and submitting under it
        if name in self.submissions:
            raise DataError(Problem("name", name, "is submitted once", "look for it"))
        if stage == "train":
            alive = [n for n, s in self.submissions.items() if s.stage == "train" and self._alive(s)]
            self.overlaps += [f"{name} while {other}" for other in alive]
        codes = self.codes.get(occurrence.slot, []) if stage == "train" else []
        ends = self.now + timedelta(minutes=TAKES[stage])
        self.submissions[name] = Submission(stage, occurrence.slot, self.now, ends, codes.pop(0) if codes else 0)
        self._at(f"submit/{stage}")
        return f"id of {name}"

    def find(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str | None:
        return f"id of {name}" if name in self.submissions else None

    def condition(self, job: Job, occurrence: Occurrence, stage: str) -> Condition:
        if self.silent:
            return Condition(GONE, None, "the scheduler does not answer")
        found = self.submissions.get(occurrence.stages[stage].id.removeprefix("id of "))
        if found is None:
            return Condition(GONE)
        if self._alive(found):
            return Condition(ALIVE)
        return Condition(OVER, 143 if found.cancelled else found.code, "as the script says")

    def cancel(self, job: Job, occurrence: Occurrence, stage: str) -> None:
        for found in self.submissions.values():
            if found.slot == occurrence.slot and found.stage == stage:
                found.cancelled = True

    def results(self, job: Job, occurrence: Occurrence, stage: str) -> Mapping[str, Any]:
        if stage != "evaluate":
            return {"stage": stage}
        champion = registry_of(self, job).alias("champion").version
        theirs = {"frozen": self._score(champion.split("-", 1)[1])} if champion else None
        mine = {"frozen": self._score(occurrence.slot)}
        return {"candidate": mine, "champion": theirs, "champion_version": champion}

    def exported(self, job: Job, occurrence: Occurrence) -> Path:
        here = self.directory / occurrence.slot
        here.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (here / name).write_text(f"{name} of {occurrence.slot}")
        return here

    def tell(self, job: Job, occurrence: Occurrence) -> str:
        self.told.append((occurrence.slot, occurrence.end))
        self._at("tell")
        return "a list"

    def mirror(self, job: Job, alias: str) -> str:
        self._at("mirror")
        return ""

    def clean(self, job: Job, occurrence: Occurrence) -> None:
        pass

    storage: Memory = field(default_factory=Memory)

    def _score(self, slot: str) -> dict[str, Any]:
        return {"loss": self.loss.get(slot, 1.0), "fingerprint": "frozen 1"}

    def _alive(self, found: Submission) -> bool:
        return not found.cancelled and found.ends > self.now

    def _at(self, call: str) -> None:
        if self.dies_at == call:
            self.dies_at = ""
            raise Killed
        if self.refuses == call:
            raise DataError(Problem(call, "refused", "works", "mend it"))


def registry_of(world: Pretended, job: Job) -> Registry:
    """The job's registry, in the world's storage."""
    return Registry(world.storage, f"registry/{job.name}")


def ticker(world: Pretended, host: str = "host 1", ledger: Memory | None = None) -> Ticker:
    """A process that ticks."""
    kept = Ledger(ledger or world.storage, "ledger")
    return Ticker(kept, Stages(world, kept, lambda job: registry_of(world, job)), host)


def tick(world: Pretended, job: Job, host: str = "host 1") -> list[str]:
    """One tick at the world's time; it may be the last of its process."""
    lines = []
    try:
        for line in ticker(world, host).tick([job], world.now):
            lines.append(line)
    except Killed:
        lines.append("killed")
    return lines
