"""What has happened to an occurrence: its log's entries, and what they come to. Pure: no clock, no storage.

An occurrence goes through STAGES in their order. A stage begins under a lease (who, until when), has perhaps something
submitted to a scheduler, and ends as done, skipped or failed. Then the occurrence is decided (how it ended, and why, in
a sentence), whoever wants to know is told, and it is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

STAGES = ("prepare", "preflight", "precompile", "train", "evaluate", "gate", "export", "publish", "notify")
PUBLISH, NOTIFY = STAGES[-2:]
PUBLISHED, REJECTED, UNCHANGED, MISSED, FAILED, CANCELLED = ENDS = (
    "published",
    "rejected",
    "unchanged",
    "missed",
    "failed",
    "cancelled",
)
"""How an occurrence ends. rejected: by a gate, or by a tie. unchanged: no new data. missed: another slot took over."""
WAITING, BEGAN, SUBMITTED, DONE, SKIPPED, BROKEN = "waiting", "began", "submitted", "done", "skipped", "failed"
LOST, SEEN = "lost", "seen"
"""What was submitted is known to nobody; somebody knows it again."""
KINDS = (SUBMITTED, DONE, SKIPPED, BROKEN, LOST, SEEN)


@dataclass(frozen=True)
class Stage:
    """How far one stage is."""

    state: str = WAITING
    attempt: int = 0
    """Times that it was begun anew; taking over from who has vanished is none."""
    begun: int = 0
    """Times that somebody took its lease."""
    holder: str = ""
    until: datetime | None = None
    """End of the holder's lease."""
    since: datetime | None = None
    """Its first beginning."""
    ended: datetime | None = None
    id: str = ""
    """Of what was submitted, as its scheduler knows it."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What it found or made."""
    failures: tuple[str, ...] = ()
    """Of the attempts that failed, under which key of retries.codes each counts."""
    code: int = 0
    """Exit code of the last one."""
    reason: str = ""
    """Why it was skipped, or failed last."""
    retry_at: datetime | None = None
    """None of a failed stage: never."""
    spent: float = 0.0
    """Seconds that attempts which have ended were submitted."""
    submitted: datetime | None = None
    lost: datetime | None = None
    """Since when nobody knows what was submitted."""

    @property
    def over(self) -> bool:
        """Whether the next one may begin."""
        return self.state in (DONE, SKIPPED)


@dataclass(frozen=True)
class Occurrence:
    """One slot of a job, as its log tells. count: entries that were read; the next one is appended behind them."""

    job: str
    slot: str
    count: int = 0
    due: Mapping[str, Any] = field(default_factory=dict)
    """Its first entry: trigger, time, fingerprint of the data, hash of the recipe."""
    stages: Mapping[str, Stage] = field(default_factory=lambda: {name: Stage() for name in STAGES})
    cancelled_by: str = ""
    end: str = ""
    """One of ENDS once it is decided."""
    code: int | None = None
    why: str = ""
    closed: bool = False
    times: tuple[datetime, ...] = ()
    """When each entry was written."""

    @property
    def decided(self) -> bool:
        """Whether it is known how it ends; it may still be that somebody has to be told."""
        return bool(self.end)

    @property
    def current(self) -> str:
        """The stage that it is in, or comes to next."""
        return next((name for name in STAGES if not self.stages[name].over), NOTIFY)

    def record(self, stage: str) -> Mapping[str, Any]:
        """What a stage found or made; empty before."""
        return self.stages[stage].record


def after(found: Occurrence, entry: Mapping[str, Any]) -> Occurrence:
    """The occurrence once one more thing has happened. Raises KeyError, ValueError, TypeError for what is none."""
    time = datetime.fromisoformat(entry["time"])
    found = replace(found, count=found.count + 1, times=(*found.times, time))
    kind = entry["type"]
    if kind == "due":
        return replace(found, due=entry)
    if kind == "cancel":
        return replace(found, cancelled_by=entry["by"])
    if kind == "decided":
        found = replace(found, end=entry["end"], code=entry["code"], why=entry["why"])
        if "stage" not in entry:
            return found
        kind = DONE  # by what this stage found
    if kind == "closed":
        return replace(found, closed=True)
    stage = _stage_after(found.stages[entry["stage"]], kind, entry, time)
    stages = {**found.stages, entry["stage"]: stage}
    for again in entry.get("again", ()):  # stages whose results hold no longer
        stages[again] = Stage(attempt=stages[again].attempt)
    return replace(found, stages=stages)


def _stage_after(stage: Stage, kind: str, entry: Mapping[str, Any], time: datetime) -> Stage:
    if kind == BEGAN:
        until = datetime.fromisoformat(entry["until"])
        return replace(
            stage,
            state=BEGAN,
            attempt=entry["attempt"],
            begun=stage.begun + 1,
            holder=entry["holder"],
            until=until,
            since=stage.since or time,
            ended=None,
        )
    if kind not in KINDS:
        raise ValueError(f"type {kind}")
    if kind in (LOST, SEEN):
        return replace(stage, lost=time if kind == LOST else None, reason=entry["reason"])
    if kind == SUBMITTED:
        return replace(stage, state=SUBMITTED, id=entry["id"], submitted=stage.submitted or time, until=None)
    spent = stage.spent + elapsed(stage.submitted, time)
    over = replace(stage, ended=time, until=None, holder="", submitted=None, lost=None, spent=spent)
    if kind == BROKEN:
        retry = entry["retry_at"]
        return replace(
            over,
            state=BROKEN,
            failures=(*stage.failures, entry["key"]) if entry["code"] else stage.failures,
            code=entry["code"],
            reason=entry["reason"],
            retry_at=datetime.fromisoformat(retry) if retry else None,
        )
    if kind == SKIPPED:
        return replace(over, state=SKIPPED, reason=entry["reason"])
    return replace(over, state=DONE, record=entry["record"], reason=entry.get("reason", ""))


def elapsed(begin: datetime | None, end: datetime) -> float:
    """Seconds between two times; 0 where there is no first, or the clock has gone back."""
    return 0.0 if begin is None else max(0.0, (end - begin).total_seconds())
