"""What stands outside of a job's ledger and registry: configurations, data, schedulers, files. Tests pretend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainer.jobs.events import Occurrence
from trainer.jobs.work import Job

PENDING, ALIVE, OVER, GONE = "pending", "running", "ended", "unknown"


@dataclass(frozen=True)
class Resolved:
    """A job's training, composed and found valid.

    recipe: hash of what makes the loss curve, without start weights and the run's name. data: fingerprint of sources.
    technique: full or the adapter's form, for the start. steps: of the whole training. money_per_hour: of all nodes.
    compiles: whether graphs are compiled ahead. runs: the directory of all runs. task: the kind of training.
    """

    recipe: str
    data: str
    technique: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    money_per_hour: float | None = None
    compiles: bool = False
    runs: str = "runs"
    task: str = "pretrain"


@dataclass(frozen=True)
class Condition:
    """Of what was submitted. state: PENDING | ALIVE | OVER | GONE (nobody knows it any more). code: once it is OVER."""

    state: str
    code: int | None = None
    reason: str = ""


class Desk(Protocol):
    """Each method may be called again for the same thing, by another host, and does the same."""

    def fingerprint(self, job: Job) -> str:
        """Of the data as they are now. Raises ConfigError, DataError."""
        ...

    def resolve(self, job: Job) -> Resolved:
        """Compose and validate. Raises ConfigError with every problem, DataError."""
        ...

    def check(self, job: Job, occurrence: Occurrence) -> Mapping[str, Any]:
        """What can go wrong is found now: launcher, room, start weights. What was looked at. Raises RunError."""
        ...

    def submit(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str:
        """Hand a stage's command to the scheduler under a name; its id. Raises RunError."""
        ...

    def find(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str | None:
        """The id of what was submitted under a name; None where nothing was."""
        ...

    def condition(self, job: Job, occurrence: Occurrence, stage: str) -> Condition:
        """Of what this stage has submitted."""
        ...

    def cancel(self, job: Job, occurrence: Occurrence, stage: str) -> None:
        """Take it back."""
        ...

    def results(self, job: Job, occurrence: Occurrence, stage: str) -> Mapping[str, Any]:
        """What an ended stage has left. Raises RunError where it has left nothing."""
        ...

    def exported(self, job: Job, occurrence: Occurrence) -> Path:
        """Directory that the stage export has written."""
        ...

    def tell(self, job: Job, occurrence: Occurrence) -> str:
        """Notify; who was told. Raises RunError."""
        ...

    def mirror(self, job: Job, alias: str) -> str:
        """Let other registries show where an alias is; a sentence, empty where there is none. Raises RunError."""
        ...

    def clean(self, job: Job, occurrence: Occurrence) -> None:
        """Delete runs that are kept no longer."""
        ...
