"""What a stage does, as a tick sees it: begun, looked at, taken back. Real stages are in trainer/jobs/stages/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from trainer.config.groups.job import JobConfig
from trainer.jobs.events import Occurrence


@dataclass(frozen=True)
class Job:
    """A job by its name."""

    name: str
    config: JobConfig


@dataclass(frozen=True)
class Done:
    """The stage is done. record: what it found or made."""

    record: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Submitted:
    """A scheduler has it now, under this id."""

    id: str


@dataclass(frozen=True)
class Running:
    """What was submitted has not ended."""

    why: str


@dataclass(frozen=True)
class Lost:
    """Nobody knows what was submitted; or, with again, somebody knows it again."""

    reason: str
    again: bool = False


@dataclass(frozen=True)
class Skipped:
    """There is nothing to do, for this reason."""

    reason: str


@dataclass(frozen=True)
class Broken:
    """It failed. code: as docs/exit_codes.md has it; it decides on tries. storage: because a storage refused."""

    code: int
    reason: str
    storage: bool = False


@dataclass(frozen=True)
class Ends:
    """With this stage it is known how the occurrence ends, and why."""

    end: str
    code: int
    why: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Again:
    """What earlier stages found holds no longer: they are done again."""

    stages: tuple[str, ...]
    reason: str


Outcome = Done | Submitted | Running | Lost | Skipped | Broken | Ends | Again


class Work(Protocol):
    """The stages of jobs. Each may be begun again by another host where the first has vanished: it does the same."""

    def begin(self, job: Job, stage: str, occurrence: Occurrence, now: datetime) -> Outcome:
        """Do a short stage whole; submit a long one, or find what was submitted by who has vanished."""
        ...

    def poll(self, job: Job, stage: str, occurrence: Occurrence, now: datetime) -> Outcome:
        """What has become of what was submitted. Never waits."""
        ...

    def cancel(self, job: Job, stage: str, occurrence: Occurrence) -> None:
        """Take back what was submitted. Nothing happens where there is nothing."""
        ...

    def fingerprint(self, job: Job) -> str:
        """Of the data as they are now, for jobs that are due on new data."""
        ...
