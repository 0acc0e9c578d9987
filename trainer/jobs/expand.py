"""From what a job's schedule says to occurrences: cron slots, another job's end, new data. Idempotent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from trainer.jobs.events import PUBLISHED
from trainer.jobs.ledger import Ledger
from trainer.jobs.schedule import label, slots, zone_of
from trainer.jobs.work import Job, Work

BY_CRON, BY_JOB, BY_DATA, BY_HAND = "cron", "after", "data", "hand"


def expand(ledger: Ledger, job: Job, work: Work, now: datetime) -> Iterator[str]:
    """Make every occurrence that is due and is not there; the slots that this call made."""
    if not job.config.enabled:
        return
    schedule = job.config.schedule
    if schedule.cron is not None:
        yield from _by_cron(ledger, job, now)
    elif schedule.after is not None:
        yield from _by_job(ledger, job, now)
    elif schedule.new_data:
        yield from _by_data(ledger, job, work, now)


def make(
    ledger: Ledger, job: str, slot: str, trigger: str, time: datetime, now: datetime, by: str = "", data: str = ""
) -> bool:
    """One occurrence; whether there was none of this slot. time: its own, which a deadline counts from. data:
    fingerprint of what it is due for."""
    due = {"type": "due", "trigger": trigger, "slot": time.isoformat(), "time": now.isoformat(), "by": by}
    due |= {"fingerprint": data} if data else {}
    return ledger.create(job, slot, due)


def _by_cron(ledger: Ledger, job: Job, now: datetime) -> Iterator[str]:
    schedule = job.config.schedule
    zone = zone_of(schedule.time_zone)
    assert schedule.cron is not None and zone is not None  # rules.py has refused others
    done = ledger.expanded(job.name)
    if done is None:  # a new job owes nothing that lies before it
        begins = datetime.fromisoformat(schedule.begins).replace(tzinfo=zone) if schedule.begins else now
        if begins > now:  # nothing is written that would outlive a correction of the file
            return
        done = label(begins - timedelta(seconds=1 if schedule.begins else 0))
        ledger.has_expanded(job.name, done)
    for time in slots(schedule.cron, zone, time_of(done), now):
        if make(ledger, job.name, label(time), BY_CRON, time, now):
            yield label(time)
        ledger.has_expanded(job.name, label(time))


def _by_job(ledger: Ledger, job: Job, now: datetime) -> Iterator[str]:
    """Each occurrence of the other job that has published calls for one of this. A new job begins with the next."""
    assert job.config.schedule.after is not None
    decided = ledger.decided(job.config.schedule.after)
    done = ledger.expanded(job.name)
    if done is None:
        ledger.has_expanded(job.name, max([*decided, label(now)]))
        return
    for slot in [slot for slot, found in decided.items() if slot > done and found["end"] == PUBLISHED]:
        mine = f"{slot}-{BY_JOB}"
        if make(ledger, job.name, mine, BY_JOB, now, now, by=f"{job.config.schedule.after} {slot}"):
            yield mine
        ledger.has_expanded(job.name, slot)


def _by_data(ledger: Ledger, job: Job, work: Work, now: datetime) -> Iterator[str]:
    """Where the data are not those of the last decision. Of hosts that see it at once, the first one names the slot."""
    if ledger.opened(job.name):
        return
    decided = {slot: known for slot, known in ledger.decided(job.name).items() if known.get("fingerprint")}
    latest = max(decided, default="")
    found = work.fingerprint(job)
    if latest and decided[latest]["fingerprint"] == found:
        return
    slot = ledger.claim(job.name, f"{latest or 'first'}-{found[:16]}", f"{label(now)}-{BY_DATA}")
    if make(ledger, job.name, slot, BY_DATA, now, now, data=found):
        yield slot


def time_of(slot: str) -> datetime:
    """The time that a slot's name begins with."""
    return datetime.strptime(slot[:16], "%Y%m%dt%H%M%Sz").replace(tzinfo=timezone.utc)
