"""Slurm's commands: scontrol, squeue, scancel, sbatch; and what they say of a job. There need be no accounting."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime

from trainer.errors import Problem
from trainer.launchers.base import LaunchError, State

SECONDS = 60.0
"""Longest that a command may take: a busy controller answers late."""
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
LIVE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
FORGOTTEN = "Invalid job id"
ABSENT = ("Could not establish a configuration source", "Unable to contact slurm controller")
"""What its commands say on a machine where they are installed and no Slurm is."""


class Refused(LaunchError):
    """A command of Slurm's has failed. text: what it printed."""

    def __init__(self, problem: Problem, text: str) -> None:
        self.text = text
        super().__init__(problem)


def slurm(*command: str, given: str = "") -> str:
    """What a command prints. given: its standard input. Raises Refused."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        rule = f"{command[0]} answers here ({error})"
        remedy = "submit from a machine of the cluster, or --dry-run to render only"
        raise Refused(Problem("launcher.name", "slurm", rule, remedy), str(error)) from None
    if done.returncode:
        text = " ".join(done.stderr.split())
        rule = f"Slurm takes it ({text})"
        raise Refused(Problem(command[0], " ".join(command[1:])[:200], rule, "correct launcher.slurm, or ask it"), text)
    return done.stdout


def show_jobs(id: str) -> list[dict[str, str]] | None:
    """A job's fields, of an array one entry for each task that Slurm has taken apart; None where it is forgotten.

    Raises Refused where Slurm does not answer.
    """
    try:
        text = slurm("scontrol", "show", "job", "--oneliner", id)
    except Refused as error:
        if FORGOTTEN in error.text:
            return None
        raise
    return [dict(re.findall(r"(?:^| )([A-Z][\w/:]*)=(\S*)", line)) for line in text.splitlines() if line.strip()]


def state_of(job: dict[str, str]) -> State:
    """A job's state."""
    name = job.get("JobState", "")
    return State.PENDING if name in WAITING else State.RUNNING if name in LIVE else State.ENDED


def code_of(job: dict[str, str]) -> int | None:
    """The exit code of an ended job as a shell has it; None where Slurm ended it for a reason that is no code."""
    code, _, number = job.get("ExitCode", "0:0").partition(":")
    if int(number or 0):
        return 128 + int(number)
    return int(code) if int(code) or job.get("JobState") == "COMPLETED" else None


def started_at(job: dict[str, str]) -> float:
    """When it started last, in seconds since 1970; 0 where it has not."""
    try:
        return datetime.fromisoformat(job.get("StartTime", "")).timestamp()
    except ValueError:
        return 0.0
