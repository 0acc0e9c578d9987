"""scripts/jobs.py: what each of its words does."""

from __future__ import annotations

import argparse
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainer.commands.jobs import people
from trainer.commands.jobs.desk import RealDesk
from trainer.commands.jobs.load import load, named, read
from trainer.errors import ConfigError, ExitCode, Problem, RunError
from trainer.jobs.ledger import Ledger
from trainer.jobs.registry.versions import Registry
from trainer.jobs.stages import Stages
from trainer.jobs.tick import Ticker, TickError
from trainer.jobs.work import Job
from trainer.printable import printable
from trainer.rules.places import place
from trainer.storage.base import is_remote

POLL_SECONDS = 1.0
VERBATIM = ("logs", "timer")
"""Words whose lines are a file's; the others' may hold what anybody has written."""


def act(options: argparse.Namespace) -> int:
    """The exit code. Raises RunError."""
    if options.word in ("evaluate", "export"):
        from trainer.commands.jobs import evaluate

        return int(getattr(evaluate, options.word)(Path(options.plan)))
    ledger = ledger_at(options.ledger)
    if options.word == "tick":
        return tick(*read(Path(options.jobs)), ledger)
    jobs = load(Path(options.jobs))
    if options.word == "run":
        return run(named(jobs, options.job), ledger)
    for line in answer(options, jobs, ledger):
        print(line if options.word in VERBATIM else printable(line), flush=True)
    return int(ExitCode.DONE)


def answer(options: argparse.Namespace, jobs: list[Job], ledger: Ledger) -> Iterator[str]:
    """Lines for people."""
    word = options.word
    if word == "ls":
        yield from people.listed(ledger, [named(jobs, options.job)] if options.job else jobs, options.count)
        return
    if word == "page":
        from trainer.commands.jobs.page import write_page

        yield from write_page(ledger, jobs, registry_of, Path(options.file))
        return
    if word == "timer":
        from trainer.commands.jobs.timer import timers

        yield from timers(options.kind, options.jobs, options.ledger, options.overrides, jobs)
        return
    job = named(jobs, options.job)
    if word in ("show", "why"):
        yield from getattr(people, "shown" if word == "show" else "why")(ledger, job, options.slot)
    elif word == "logs":
        yield from people.logs(ledger, job, options.slot, options.stage)
    elif word == "check":
        yield from people.looked(stages(ledger), job)
    elif word == "cancel":
        yield from people.cancelled(ledger, job, options.slot)
    elif word == "rerun":
        again = people.existing(ledger, job, options.slot)
        yield f"{job.name} {people.started(ledger, job, f'{people.person()}, again after {again.slot}')} is due"
    elif word == "registry":
        yield from people.versions(registry_of(job))
    elif word == "promote":
        yield from people.promoted(registry_of(job), options.version, options.because)
        yield from mirrored(job)
    else:
        yield from people.rolled_back(registry_of(job), options.because)
        yield from mirrored(job)


def ledger_at(where: str) -> Ledger:
    """Raises ConfigError where nothing can be kept there, StorageError where boto3 is missing."""
    problems = list(place("--ledger", where))
    if not problems and not is_remote(where) and Path(where).exists() and not Path(where).is_dir():
        problems = [Problem("--ledger", where, "is a directory, or will be one", "name another, or move the file away")]
    if problems:
        raise ConfigError(problems)
    return Ledger.at(where)


def mirrored(job: Job) -> Iterator[str]:
    """Other registries show what a person has moved, too."""
    if text := RealDesk(registry_of).mirror(job, "champion"):
        yield text


def tick(jobs: list[Job], problems: list[Problem], ledger: Ledger) -> int:
    """One tick of all jobs whose files are right. Raises TickError with what holds up the others, and those files."""
    errors: list[RunError] = []
    try:
        for line in ticker(ledger).tick(jobs, people.now()):
            print(printable(line), flush=True)
    except RunError as error:
        errors.append(error)
    if problems:
        errors.append(ConfigError(problems))
    if errors:
        raise TickError(errors)
    return int(ExitCode.DONE)


def run(job: Job, ledger: Ledger) -> int:
    """Make an occurrence now and take it to its end, as ticks would; its code: 0 published, 14 a gate has refused it.

    Ctrl-C leaves it to the ticks.
    """
    slot, alone = people.started(ledger, job), Job(job.name, replace(job.config, enabled=False))
    while True:
        for line in ticker(ledger).tick([alone], people.now()):
            print(printable(line), flush=True)
        one = ledger.occurrence(job.name, slot)
        if one.closed:
            return int(one.code or 0)
        time.sleep(POLL_SECONDS)


def ticker(ledger: Ledger) -> Ticker:
    """This process's."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    return Ticker(ledger, stages(ledger), holder)


def stages(ledger: Ledger) -> Stages:
    """The real ones."""
    return Stages(RealDesk(registry_of), ledger, registry_of)


def registry_of(job: Job) -> Registry:
    """Of the model that a job publishes."""
    return Registry.at(job.config.publish.registry, job.config.publish.model or job.name)
