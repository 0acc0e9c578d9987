"""Prints what a job prints until it ends. The only place that waits for one."""

from __future__ import annotations

import sys
import time
from itertools import islice

from trainer.commands.command_line import INTERRUPTED
from trainer.launchers.base import Launcher, State, Status, poll_seconds
from trainer.launchers.making import launcher_of
from trainer.launchers.submission import Submission
from trainer.run.exit_json import CRASH

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 300.0
"""How long an engine may not know the job, or not answer, before nobody waits for it any longer."""


def follow(submission: Submission, how_to_stop: str) -> int:
    """The code that the job ended with; 1 where nobody knows it. Ctrl-C ends this and not the job."""
    launcher = launcher_of(submission.launcher)
    try:
        status = _printed_to_its_end(launcher, submission)
    except KeyboardInterrupt:
        tell(f"\nno longer following {submission.id}, which goes on; to stop it: {how_to_stop}")
        return INTERRUPTED
    tell(f"{submission.id} {ending(status)}")
    return CRASH if status.code is None else status.code


def _printed_to_its_end(launcher: Launcher, submission: Submission) -> Status:
    assert submission.id is not None
    lines, said, known_at = 0, "", time.monotonic()
    while True:
        status = launcher.status(submission.id, submission.request)  # first: what has ended has printed all
        for line in islice(launcher.logs(submission.id, submission.request), lines, None):
            print(line, flush=True)
            lines += 1
        if status.state is not State.UNKNOWN:
            known_at = time.monotonic()
        if status.state is State.ENDED or time.monotonic() - known_at > PATIENCE_SECONDS:
            return status
        if status.state is not State.RUNNING and (now := f"{status.state.value}: {status.reason}") != said:
            tell(f"{submission.id} is {now}")
            said = now
        time.sleep(max(POLL_SECONDS, poll_seconds(launcher)))


def ending(status: Status) -> str:
    """How it stands, in words."""
    code = "" if status.code is None else f" with code {status.code}"
    return f"{status.state.value}{code}: {status.reason}" if status.reason else f"{status.state.value}{code}"


def tell(text: str) -> None:
    """A line for people; standard output is the job's, or the id alone."""
    print(text, file=sys.stderr, flush=True)
