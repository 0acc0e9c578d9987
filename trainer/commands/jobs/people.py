"""What people ask of scheduled jobs and do to them. Each function yields lines."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from time import sleep

from trainer.commands.jobs.desk import directory_of
from trainer.errors import ConfigError, Problem
from trainer.jobs.events import STAGES, Occurrence
from trainer.jobs.expand import BY_HAND, make
from trainer.jobs.explain import duration, explain
from trainer.jobs.ledger import Ledger
from trainer.jobs.log import Conflict
from trainer.jobs.registry.versions import Registry
from trainer.jobs.schedule import label, zone_of
from trainer.jobs.schedule import slots as times
from trainer.jobs.stages import Stages
from trainer.jobs.work import Job
from trainer.launchers.making import launcher_of
from trainer.launchers.submission import read_submission

WIDTH = 90
HORIZON = timedelta(days=366)


def now() -> datetime:
    """In UTC."""
    return datetime.now(timezone.utc)


def person() -> str:
    """Who does this, for the ledger."""
    return f"{getpass.getuser()} on {socket.gethostname()}"


def listed(ledger: Ledger, jobs: Sequence[Job], count: int) -> Iterator[str]:
    """The newest occurrences of each job, a line for each. Raises ConfigError."""
    if count < 1:
        raise ConfigError(Problem("--count", count, "is 1 or more", "5, say"))
    for job in jobs:
        slots = ledger.slots(job.name)
        yield f"{job.name}: {when(job)}; {counted(len(slots), 'occurrence')}; {coming(job, now())}"
        for slot in slots[-count:]:
            yield f"  {line(ledger.occurrence(job.name, slot))}"


def line(one: Occurrence) -> str:
    """How an occurrence stands."""
    state = one.end or f"{one.current} {one.stages[one.current].state}"
    why = one.why or one.stages[one.current].reason
    cut = f"{why[: WIDTH - 3]}..." if len(why) > WIDTH else why
    return f"{one.slot:<24} {state:<20} {duration(one):>9}  {cut}".rstrip()


def when(job: Job) -> str:
    """A job's schedule in words."""
    schedule = job.config.schedule
    if schedule.cron is not None:
        return f"{schedule.cron} in {schedule.time_zone}"
    return f"after {schedule.after}" if schedule.after is not None else "on new data"


def counted(number: int, what: str) -> str:
    """1 occurrence, 2 occurrences."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def coming(job: Job, now: datetime) -> str:
    """When a tick makes the next occurrence, as far as the clock alone decides."""
    schedule = job.config.schedule
    zone = zone_of(schedule.time_zone)
    if not job.config.enabled:
        return "not enabled"
    if schedule.cron is None or zone is None:
        return "next when a tick finds it due"
    begins = datetime.fromisoformat(schedule.begins).replace(tzinfo=zone) if schedule.begins else now
    begins = max(begins, now)
    due = next(times(schedule.cron, zone, begins, begins + HORIZON), None)
    return f"next {due.astimezone(zone):%Y-%m-%d %H:%M}" if due else f"none within {HORIZON.days} days"


def shown(ledger: Ledger, job: Job, slot: str) -> Iterator[str]:
    """Every stage of an occurrence, with what it found."""
    one = existing(ledger, job, slot)
    yield line(one)
    for name in STAGES:
        stage = one.stages[name]
        tries = f" ({stage.attempt} attempts)" if stage.attempt > 1 else ""
        yield f"  {name:<11} {stage.state:<10}{tries} {stage.reason}".rstrip()
        for key, value in stage.record.items():
            yield f"      {key:<16} {value}"


def why(ledger: Ledger, job: Job, slot: str) -> Iterator[str]:
    """Everything that has happened to an occurrence."""
    one = existing(ledger, job, slot)
    yield from explain(one, ledger.log(job.name, one.slot).read())


def logs(ledger: Ledger, job: Job, slot: str, stage: str) -> Iterator[str]:
    """What a stage's command has printed, by its launcher. Raises ConfigError."""
    if stage not in STAGES:
        raise ConfigError(Problem("--stage", stage, f"is one of {', '.join(STAGES)}", "train, say"))
    one = existing(ledger, job, slot)
    directory = directory_of(one, stage) if one.record("prepare") else Path("nowhere")
    submission = read_submission(directory)
    if submission is None or submission.id is None:
        rule = "has been submitted to a launcher"
        raise ConfigError(
            Problem("--stage", stage, rule, "train, evaluate and export are; jobs.py show tells how far it is")
        )
    yield from launcher_of(submission.launcher).logs(submission.id, submission.request)


def started(ledger: Ledger, job: Job, because: str = "") -> str:
    """Make an occurrence now; its slot. Who comes second within a second waits for the next: it is another one."""
    while True:
        time = now()
        slot = f"{label(time)}-{BY_HAND}"
        if make(ledger, job.name, slot, BY_HAND, time, time, by=because or person()):
            return slot
        sleep(0.1)


def cancelled(ledger: Ledger, job: Job, slot: str) -> Iterator[str]:
    """Ask for it; the next tick does it."""
    while True:
        one = existing(ledger, job, slot)
        if one.decided:
            rule = f"has not ended; it is {one.end}"
            raise ConfigError(Problem("SLOT", one.slot, rule, "rerun it, or roll a published model back"))
        try:
            entry = {"type": "cancel", "by": person(), "time": now().isoformat()}
            ledger.log(job.name, one.slot).append(entry, one.count)
        except Conflict:
            continue
        yield f"{job.name} {one.slot} is cancelled by the next tick"
        return


def looked(stages: Stages, job: Job) -> Iterator[str]:
    """What would be trained if an occurrence began now. Raises ConfigError, DataError with what would end it."""
    found = stages.looked(job, now())
    yield f"{job.name}: {when(job)}" + ("" if job.config.enabled else "; not enabled")
    yield f"  recipe    {job.config.recipe}, {found['task']}, {found['technique'].get('kind', 'full')}"
    yield f"  start     {found['start']['why']}"
    yield f"  data      {found['fingerprint'][:16]}"
    yield f"  gates     {', '.join(gate.name for gate in job.config.gates) or 'none: whatever is trained is published'}"
    yield f"  room      {found['free_gib']} GiB for {found['run']}"
    yield "nothing is wrong that can be seen before a training; nothing was written"


def existing(ledger: Ledger, job: Job, slot: str) -> Occurrence:
    """By its slot, by the beginning of it, or "last". Raises ConfigError."""
    slots = ledger.slots(job.name)
    found = (
        slots[-1:]
        if slot == "last"
        else [one for one in slots if one == slot] or [one for one in slots if one.startswith(slot)]
    )
    if len(found) != 1:
        known = ", ".join(slots[-3:]) or "there is none"
        rule = f"names one occurrence of {job.name}; {len(found)} fit"
        raise ConfigError(Problem("SLOT", slot, rule, f"last, or one of jobs.py ls; the newest: {known}"))
    return ledger.occurrence(job.name, found[0])


def promoted(registry: Registry, version: str, because: str) -> Iterator[str]:
    """Make a version the champion, whatever gates say."""
    alias = registry.alias("champion")
    try:
        registry.promote("champion", version, alias.number, now().isoformat(), person(), because)
    except Conflict:
        raise _moved() from None
    yield f"{version} is champion; before: {alias.version or 'none'}"


def rolled_back(registry: Registry, because: str) -> Iterator[str]:
    """The champion before this one."""
    before = registry.alias("champion").version
    try:
        version = registry.roll_back("champion", now().isoformat(), person(), because)
    except Conflict:
        raise _moved() from None
    yield f"{version} is champion again; {before} is withdrawn, and nothing that started from it is published"


def versions(registry: Registry) -> Iterator[str]:
    """What is published, and which of it the aliases name."""
    names: dict[str, list[str]] = {}
    for alias in ("champion", "challenger"):
        if (version := registry.alias(alias).version) is not None:
            names.setdefault(version, []).append(alias)
    if not registry.versions():
        yield f"no version is published yet in {registry.root}"
    withdrawn = registry.alias("champion").withdrawn
    for version in registry.versions():
        notes = [*names.get(version, ()), *(["withdrawn"] if version in withdrawn else [])]
        yield f"{version:<48} {', '.join(notes):<22} {registry.place(version)}".rstrip()


def _moved() -> ConfigError:
    rule = "was moved by somebody else at this moment"
    return ConfigError(Problem("champion", "?", rule, "look again (jobs.py registry), and decide anew"))
