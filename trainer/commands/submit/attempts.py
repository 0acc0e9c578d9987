"""Where submissions of a run are kept: RUN/launch/0001, 0002 ..., of which each is made by one submitter alone.

launch/0001/submission.json   who was asked for what, and the id
launch/0001/...               the rendered files, and what the job prints
launch/dry-run/               what the last --dry-run has rendered
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trainer.errors import Problem
from trainer.launchers.base import Launcher, LaunchError, State
from trainer.launchers.making import launcher_of
from trainer.launchers.request import name_of
from trainer.launchers.submission import Submission, read_submission, write_submission

DRY_RUN = "dry-run"
LOCK = ".lock"


def launches(run: Path) -> Path:
    """The directory of a run's submissions."""
    return run.absolute() / "launch"


def numbers(run: Path) -> list[int]:
    """Of the submissions, oldest first."""
    return sorted(int(path.name) for path in launches(run).glob("[0-9]*") if path.name.isdigit())


def newest(run: Path) -> Submission | None:
    """The newest submission, with its id if the engine has one: who made it may have crashed before recording that."""
    for number in reversed(numbers(run)):
        submission = read_submission(attempt_directory(run, number))
        if submission is not None and submission.id is None:
            id = launcher_of(submission.launcher).find(submission.request.name)
            submission = replace(submission, id=id)
            if id is not None:
                write_submission(submission)
        if submission is not None and submission.id is not None:
            return submission
    return None


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """No other process submits this run in the block: who comes at the same time waits, and sees what was submitted.

    Raises LaunchError where the run's directory cannot be written.
    """
    try:
        launches(run).mkdir(parents=True, exist_ok=True)
        lock = open(launches(run) / LOCK, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _takes_nothing(launches(run), error) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _takes_nothing(directory: Path, error: OSError) -> LaunchError:
    rule = f"takes the rendered files ({error.strerror})"
    return LaunchError(Problem("run.root", str(directory), rule, "make room or restore access"))


def refuse_live(run: Path, remedy: str) -> None:
    """Raise LaunchError where a submission of this run waits or runs, or where its launcher cannot tell."""
    try:
        last = newest(run)
        if last is None or last.id is None:
            return
        status = launcher_of(last.launcher).status(last.id, last.request)
    except LaunchError as error:
        raise LaunchError([_unanswered(run), *error.problems]) from None
    if status.state in (State.PENDING, State.RUNNING):
        rule = f"no submission of this run is live; {last.id} ({last.launcher.name}) is {status.state.value}"
        raise LaunchError(Problem("run.name", run.name, rule, remedy))


def _unanswered(run: Path) -> Problem:
    last = attempt_directory(run, numbers(run)[-1])
    rule = f"no submission of this run is live; about {os.path.relpath(last)} its launcher does not answer"
    return Problem("run.name", run.name, rule, "mend what follows, or take another run.name, or delete that directory")


def attempt_directory(run: Path, number: int) -> Path:
    """Where one submission is kept."""
    return launches(run) / f"{number:04d}"


def name_of_attempt(run: Path, number: int) -> str:
    """The submission's own name: the same run elsewhere has another."""
    digest = hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:8]
    return name_of(run.name, f"{number:04d}-{digest}")


def submit(launcher: Launcher, made: Submission) -> str:
    """Submit and record; the id. A submission whose id is not recorded is found by its name (newest).

    Raises LaunchError where the directory is there, or cannot be made, and what the launcher raises.
    """
    try:
        made.request.directory.mkdir()
        write_submission(made)
    except OSError as error:
        raise _takes_nothing(made.request.directory, error) from None
    id = launcher.submit(made.request)
    write_submission(replace(made, id=id))
    return id
