"""The launcher for Slurm. It is asked by scontrol and squeue: accounting (sacct) is not needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.files import read_json
from trainer.launchers import script
from trainer.launchers.base import LaunchError, State, Status
from trainer.launchers.ends import ended, worst
from trainer.launchers.request import Request
from trainer.launchers.slurm.after import file_name
from trainer.launchers.slurm.render import BATCH, NODE, output_name, render, signal_seconds
from trainer.launchers.slurm.tools import ABSENT, Refused, code_of, show_jobs, slurm, started_at, state_of


class SlurmLauncher:
    """A sweep is an array: each task is a job of its own that waits, runs and goes back by itself."""

    takes_tasks = True

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config

    def render(self, request: Request) -> dict[str, str]:
        """trainer.launchers.slurm.render."""
        return render(request, self._config)

    def problems(self, request: Request, files: Mapping[str, str]) -> list[Problem]:
        """What can be told here; and what Slurm says, where it is at hand."""
        found = [*script.unreadable(files[NODE]), *script.unreadable(files[BATCH])]
        before, limit = signal_seconds(request), request.limit_minutes
        if limit is not None and limit * 60 <= before:
            rule = f"more than {before} s: so long before it the job is asked to stop (reliability.grace_seconds)"
            remedy = f"launcher.limit_minutes={-(-2 * before // 60)}, or a shorter grace"
            found.append(Problem("launcher.limit_minutes", limit, rule, remedy))
        for option in self._config.slurm.options:
            if not option.startswith("--"):
                found.append(Problem("launcher.slurm.options", option, "an option of sbatch: --name=value", "add --"))
        return found or list(_asked(files[BATCH]))

    def submit(self, request: Request) -> str:
        """sbatch. Raises LaunchError where it refuses, and where there is a job of this name."""
        if (id := self.find(request.name)) is not None:
            rule = f"the name of one job only; job {id} has it"
            raise LaunchError(Problem("name", request.name, rule, "find it by this name, or take another"))
        script.keep(request.directory, self.render(request))
        return slurm("sbatch", "--parsable", str(request.directory / BATCH)).strip().partition(";")[0]

    def find(self, name: str) -> str | None:
        """By squeue: as long as Slurm remembers ended jobs (MinJobAge)."""
        found = slurm("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%F").split()
        return found[0] if found else None

    def status(self, id: str, request: Request) -> Status:
        """By scontrol, and by what the job's end has left."""
        tasks = range(len(request.tasks)) if request.tasks else [None]
        try:
            jobs = show_jobs(id)
        except Refused as error:
            return Status(State.UNKNOWN, None, f"Slurm does not answer: {error.text}")
        by_task = {job.get("ArrayTaskId"): job for job in jobs or []}
        # Tasks that wait share one entry: its ArrayTaskId is a range.
        waiting = next((job for job in jobs or [] if state_of(job) is State.PENDING), None)
        found = [
            self._status(request, task, by_task.get(None if task is None else str(task), waiting)) for task in tasks
        ]
        return worst(found) if request.tasks else found[0]

    def _status(self, request: Request, task: int | None, job: dict[str, str] | None) -> Status:
        """Of one job, or of one task of an array."""
        if job is not None and (state := state_of(job)) is not State.ENDED:
            where = f" on {job.get('NodeList')}" if state is State.RUNNING else ""
            restarts = f", after {job['Restarts']} requeues" if job.get("Restarts", "0") != "0" else ""
            return Status(state, None, f"{job.get('JobState')} {job.get('Reason')}{where}{restarts}")
        with suppress(FileNotFoundError):
            end: dict[str, Any] = read_json(request.directory / file_name("end", task, "json"))
            return Status(State.ENDED, int(end["code"]), str(end["reason"]))
        if job is None:
            return Status(State.UNKNOWN, None, "Slurm knows the job no longer, and it has left no end.json")
        one = request if task is None else _one(request, task)
        return ended(one, started_at(job) or float("inf"), code_of(job), f"{job.get('JobState')} {job.get('Reason')}")

    def cancel(self, id: str) -> None:
        """What waits is cancelled; what runs is asked to save, with its own grace and not with Slurm's KillWait."""
        with suppress(Refused):  # it has ended, or is an array of which a part has
            slurm("scontrol", "update", f"JobId={id}", "Requeue=0")
        with suppress(Refused):
            slurm("scancel", "--quiet", "--state=PENDING", id)
        jobs = show_jobs(id) or []
        running = [job["JobId"] for job in jobs if state_of(job) is State.RUNNING]
        for job in running:
            steps = slurm("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i").split()
            begun = any(not step.endswith((".batch", ".extern")) for step in steps)
            slurm("scancel", "--quiet", *(["--signal=USR1"] if begun else []), job)

    def logs(self, id: str, request: Request) -> Iterator[str]:
        """Of an array the tasks' one after the other: the next one's when it has ended."""
        if not request.tasks:
            yield from script.printed(request.directory / output_name(request, None), whole=False)
            return
        for task in range(len(request.tasks)):
            lines = script.printed(request.directory / output_name(request, task), whole=False)
            yield from (f"[{task}] {line}" for line in lines)
            if not (request.directory / file_name("end", task, "json")).exists():
                return


def _one(request: Request, task: int) -> Request:
    """A task of an array, as a request of its own."""
    return replace(request, tasks=(), run=request.tasks[task].run)


def _asked(batch: str) -> Iterator[Problem]:
    """What sbatch --test-only says; nothing where there is no Slurm here, which a dry run does not need."""
    if shutil.which("sbatch") is None:
        return
    try:
        slurm("sbatch", "--test-only", given=batch)
    except Refused as error:
        if any(words in error.text for words in ABSENT):
            return
        rule = f"Slurm takes such a job ({error.text})"
        yield Problem("launcher.slurm", "sbatch --test-only", rule, "correct launcher.slurm.*, or launcher.nodes")
