"""What comes next for an occurrence. A pure function of its log and the time, so that every host decides alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainer.config.groups.job import JobRetriesConfig
from trainer.errors import ExitCode
from trainer.jobs.events import (
    BEGAN,
    BROKEN,
    CANCELLED,
    FAILED,
    NOTIFY,
    PUBLISH,
    SUBMITTED,
    WAITING,
    Occurrence,
    Stage,
)

NEVER = (int(ExitCode.CONFIG), int(ExitCode.DATA), int(ExitCode.NONFINITE), int(ExitCode.GATE))
"""Ends that another try would end with again."""
OTHER, STORAGE = "other", "storage"
MOST_LEASES = 50
"""Of one stage: what ends whoever begins it is not begun for ever."""


@dataclass(frozen=True)
class Begin:
    """Take the lease of a stage and begin it. anew: another attempt; otherwise from whoever has vanished in it."""

    stage: str
    attempt: int


@dataclass(frozen=True)
class Poll:
    """Look what has become of what a stage has submitted."""

    stage: str


@dataclass(frozen=True)
class Cancel:
    """Take back what a stage has submitted, and decide."""

    stage: str


@dataclass(frozen=True)
class Decide:
    """It is known how it ends."""

    end: str
    code: int
    why: str


@dataclass(frozen=True)
class Close:
    """Everything is done."""


@dataclass(frozen=True)
class Wait:
    """Nothing for now."""

    why: str


Action = Begin | Poll | Cancel | Decide | Close | Wait


def next_action(occurrence: Occurrence, now: datetime) -> Action:
    """What to do about an occurrence that is not closed."""
    if occurrence.decided:
        return _tell(occurrence, now)
    name = occurrence.current
    stage = occurrence.stages[name]
    if occurrence.cancelled_by and not _held(stage, now) and not (name == PUBLISH and stage.begun):
        return Cancel(name)
    if name == NOTIFY:
        raise AssertionError("publish decides an occurrence before anybody is told")
    return _go_on(name, stage, now)


def _go_on(name: str, stage: Stage, now: datetime) -> Action:
    if stage.state == SUBMITTED:
        return Poll(name)
    if stage.state == WAITING:
        return Begin(name, 1 + stage.attempt)
    if stage.state == BEGAN:
        if _held(stage, now):
            return Wait(f"{name} is being done by {stage.holder}")
        if stage.begun >= MOST_LEASES:
            return Decide(FAILED, 1, f"{name} failed: {stage.begun} processes have vanished while they were at it")
        return Begin(name, stage.attempt)
    if stage.retry_at is None:
        return Decide(FAILED, stage.code, f"{name} failed: {stage.reason}")
    if stage.retry_at > now:
        return Wait(f"{name} is tried again at {stage.retry_at.isoformat()}: {stage.reason}")
    return Begin(name, 1 + stage.attempt)


def _tell(occurrence: Occurrence, now: datetime) -> Action:
    """After the decision nothing changes it: who cannot be told is not told."""
    stage = occurrence.stages[NOTIFY]
    if stage.over or (stage.state == BROKEN and stage.retry_at is None):
        return Close()
    return _go_on(NOTIFY, stage, now)


def _held(stage: Stage, now: datetime) -> bool:
    """Whether somebody is at it whose lease has not run out."""
    return stage.state == BEGAN and stage.until is not None and stage.until > now


def key_of(code: int, storage: bool, config: JobRetriesConfig) -> str:
    """Under which key of retries.codes a failure counts. storage: it is a storage that did not take or give."""
    if storage:
        return STORAGE
    return str(code) if str(code) in config.codes else OTHER


def retry_at(stage: Stage, code: int, key: str, config: JobRetriesConfig, now: datetime) -> datetime | None:
    """When a stage that has just failed is tried again; None: never.

    Each key has tries of its own. Preempted is no failure of anything: it goes on at once.
    """
    before = stage.failures.count(key)
    if (code in NEVER and key != STORAGE) or before >= config.codes.get(key, 0):
        return None
    if code == ExitCode.PREEMPTED:
        return now
    delay = min(config.delay_minutes * 2.0**before, config.longest_delay_minutes)
    return now + timedelta(minutes=delay)


def cancelled(occurrence: Occurrence) -> Decide:
    """The end of an occurrence that a person has taken back."""
    return Decide(CANCELLED, 0, f"cancelled by {occurrence.cancelled_by}, in the stage {occurrence.current}")
