"""One tick: make what is due, and take every open occurrence as far as it goes without waiting.

Safe from several hosts at once, and after a kill at any place: what is to be done follows from the ledger alone, and
each thing that happens is one entry, which only one of them can write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from trainer.config.groups.job import JobRetriesConfig
from trainer.errors import RunError, one_line
from trainer.jobs.decide import Begin, Cancel, Close, Decide, Poll, Wait, cancelled, key_of, next_action, retry_at
from trainer.jobs.events import (
    BEGAN,
    BROKEN,
    DONE,
    LOST,
    MISSED,
    SEEN,
    SKIPPED,
    SUBMITTED,
    WAITING,
    Occurrence,
    Stage,
    after,
)
from trainer.jobs.expand import BY_HAND, expand
from trainer.jobs.ledger import Ledger
from trainer.jobs.log import Conflict
from trainer.jobs.work import Again, Broken, Done, Ends, Job, Lost, Outcome, Running, Skipped, Submitted, Work
from trainer.redact import redact
from trainer.storage.base import StorageError

LEASE = timedelta(minutes=15)
"""For a stage that is done within a tick, or to submit one: hashing of the data is the longest."""
CRASH = 1


class TickError(RunError):
    """Some occurrences could not go on now; the next tick tries again. Its code is that of the first error."""

    title = "not all jobs could go on"

    def __init__(self, errors: list[RunError]) -> None:
        self.code = errors[0].code
        super().__init__([problem for error in errors for problem in error.problems])


@dataclass(frozen=True)
class Ticker:
    """holder: this process, unlike any other. clock is asked once a tick: one tick sees one time."""

    ledger: Ledger
    work: Work
    holder: str

    def tick(self, jobs: Iterable[Job], now: datetime) -> Iterator[str]:
        """A line for each thing that happened. An occurrence that cannot go on does not hold up the others: its errors
        are raised together at the end, as TickError."""
        failed: list[RunError] = []
        crashed: list[Exception] = []
        for job in jobs:
            try:
                for slot in expand(self.ledger, job, self.work, now):
                    yield f"{job.name} {slot}: due"
                for line in self._take_on(job, now):
                    yield f"{job.name} {line}"
            except RunError as error:
                failed.append(_of(job, error))
            except Exception as error:  # a bug, which is shown when the other jobs have had their turn
                crashed.append(error)
        if crashed:
            raise crashed[0]
        if failed:
            raise TickError(failed)

    def _take_on(self, job: Job, now: datetime) -> Iterator[str]:
        """The earliest open occurrence goes on; those behind it wait, or are missed by what the job's policy says."""
        found = self.ledger.opened(job.name)
        for number, occurrence in enumerate(found):
            if occurrence.closed:  # its mark came back
                self.ledger.close(job.name, occurrence.slot)
                continue
            behind = [one for one in found[:number] if not one.closed and not one.decided]
            later = [one for one in found[number + 1 :] if one.due.get("trigger") != BY_HAND]
            if why := self._missed(job, occurrence, behind, later, now):
                yield from self._go(job, occurrence, now, Decide(MISSED, 0, why))
            elif occurrence.decided or occurrence.cancelled_by or not behind:
                yield from self._go(job, occurrence, now, None)
                found[number] = self.ledger.occurrence(job.name, occurrence.slot)

    def _missed(
        self, job: Job, one: Occurrence, before: list[Occurrence], later: list[Occurrence], now: datetime
    ) -> str:
        """Why an occurrence that has not begun never will; empty where it may."""
        if (
            one.due.get("trigger") == BY_HAND
            or one.decided
            or one.cancelled_by
            or one.stages[one.current].state != WAITING
            or one.record("prepare")
        ):
            return ""
        schedule = job.config.schedule
        limit = schedule.deadline_minutes
        time = datetime.fromisoformat(one.due["slot"])
        if limit is not None and now > time + timedelta(minutes=limit):
            return f"it could not begin within {limit:g} minutes of its time"
        if schedule.catch_up == "latest" and later:
            return f"{later[-1].slot} is due as well, and only the latest of several is caught up with"
        if schedule.catch_up == "none" and (before or later):
            return "another occurrence was at work" if before else f"its time has passed: {later[-1].slot} is due"
        return ""

    def _go(self, job: Job, occurrence: Occurrence, now: datetime, first: Decide | None) -> Iterator[str]:
        """As far as it goes. Another host that is faster ends it: it goes on there."""
        if occurrence.decided:
            self.keep(occurrence)  # again: who decided it may have been killed before
        try:
            while True:
                action = first or next_action(occurrence, now)
                first = None
                if isinstance(action, Wait):
                    return
                if isinstance(action, Close):
                    self._add(occurrence, now, {"type": "closed"})
                    self.ledger.close(job.name, occurrence.slot)
                    return
                before = occurrence
                occurrence = self._do(job, occurrence, action, now)
                if occurrence is before:
                    return
                yield from _told(before, occurrence)
        except Conflict:
            return

    def _do(self, job: Job, one: Occurrence, action: object, now: datetime) -> Occurrence:
        """The occurrence after one action; itself where nothing has changed."""
        if isinstance(action, Decide):
            return self._decide(job, one, now, action, {})
        if isinstance(action, Begin):
            lease = {"holder": self.holder, "until": (now + LEASE).isoformat(), "attempt": action.attempt}
            one = self._add(one, now, {"type": BEGAN, "stage": action.stage, **lease})
            outcome = self._safely(self.work.begin, job, action.stage, one, now)
            try:
                return self._outcome(job, one, action.stage, now, outcome)
            except Conflict:
                return self._outcome(job, self._cancelled_meanwhile(one, action.stage), action.stage, now, outcome)
        if isinstance(action, Poll):
            outcome = self._safely(self.work.poll, job, action.stage, one, now)
            return self._outcome(job, one, action.stage, now, outcome)
        assert isinstance(action, Cancel)
        self.work.cancel(job, action.stage, one)
        return self._decide(job, one, now, cancelled(one), {})

    def _cancelled_meanwhile(self, one: Occurrence, stage: str) -> Occurrence:
        """The occurrence as it is where nothing but a person's wish has come between a lease and what was done in it.
        Raises Conflict where the lease has gone to another."""
        found = self.ledger.occurrence(one.job, one.slot)
        if found.decided or found.stages[stage] != one.stages[stage]:
            raise Conflict
        return found

    def _safely(self, do: Any, job: Job, stage: str, one: Occurrence, now: datetime) -> Outcome:
        """What a stage came to; an error is a failure of it. A kill of this process is neither."""
        try:
            outcome: Outcome = do(job, stage, one, now)
        except RunError as error:
            why = "; ".join(one_line(p) for p in error.problems)
            return Broken(int(error.code), why, storage=isinstance(error, StorageError))
        except Exception as error:
            return Broken(CRASH, f"{type(error).__name__}: {error}")
        return outcome

    def _outcome(self, job: Job, one: Occurrence, stage: str, now: datetime, outcome: Outcome) -> Occurrence:
        """Record it."""
        if isinstance(outcome, Running):
            return one
        if isinstance(outcome, Ends):
            more = {"stage": stage, "record": dict(outcome.record)}
            return self._decide(job, one, now, Decide(outcome.end, outcome.code, outcome.why), more)
        entry: Mapping[str, Any]
        if isinstance(outcome, Submitted):
            entry = {"type": SUBMITTED, "id": outcome.id}
        elif isinstance(outcome, Lost):
            entry = {"type": SEEN if outcome.again else LOST, "reason": outcome.reason}
        elif isinstance(outcome, Skipped):
            entry = {"type": SKIPPED, "reason": outcome.reason}
        elif isinstance(outcome, Done):
            entry = {"type": DONE, "record": dict(outcome.record), "reason": outcome.reason}
        elif isinstance(outcome, Again):
            entry = {"type": BROKEN, "code": 0, "key": "", "reason": outcome.reason, "retry_at": now.isoformat()}
            entry = {**entry, "again": outcome.stages}
        else:
            entry = _broken(one.stages[stage], outcome, job.config.retries, now)
        return self._add(one, now, {"stage": stage, **entry})

    def _decide(
        self, job: Job, one: Occurrence, now: datetime, decision: Decide, more: Mapping[str, Any]
    ) -> Occurrence:
        entry = {"type": "decided", "end": decision.end, "code": decision.code, "why": decision.why, **more}
        one = self._add(one, now, entry)
        self.keep(one)
        return one

    def keep(self, one: Occurrence) -> None:
        """What an occurrence came to, where others look for it."""
        known = {"end": one.end, "why": one.why, "version": one.record("publish").get("version")}
        data = {"fingerprint": one.due["fingerprint"]} if one.due.get("fingerprint") else {}
        self.ledger.has_decided(one.job, one.slot, {**data, **one.record("prepare"), **known})

    def _add(self, one: Occurrence, now: datetime, entry: Mapping[str, Any]) -> Occurrence:
        """Append an entry behind what was read. Raises Conflict where another host has appended meanwhile."""
        entry = redact({"time": now.isoformat(), "by": self.holder, **entry})
        self.ledger.log(one.job, one.slot).append(entry, one.count)
        return after(one, entry)


def _of(job: Job, error: RunError) -> RunError:
    """With the job's name in its problems."""
    found = RunError(replace(problem, key=f"{job.name}: {problem.key}") for problem in error.problems)
    found.code = error.code
    return found


def _broken(stage: Stage, outcome: Broken, config: JobRetriesConfig, now: datetime) -> Mapping[str, Any]:
    key = key_of(outcome.code, outcome.storage, config)
    when = retry_at(stage, outcome.code, key, config, now)
    found = {"type": BROKEN, "code": outcome.code, "key": key, "reason": outcome.reason}
    return {**found, "retry_at": when.isoformat() if when else None}


def _told(before: Occurrence, now: Occurrence) -> Iterator[str]:
    """What has changed, in a line."""
    if now.end != before.end:
        yield f"{now.slot}: {now.end}: {now.why}"
        return
    for name, stage in now.stages.items():
        if stage != before.stages[name] and stage.state != BEGAN:
            what = f": {stage.reason}" if stage.reason and stage.state in (BROKEN, SKIPPED) else ""
            yield f"{now.slot}: {name} {stage.state}{what}"
