"""What scripts/submit.py does with the jobs that were composed: one submission for each, or one for a whole sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.commands.submit import attempts
from trainer.commands.submit.follow import ending, follow, tell
from trainer.commands.submit.jobs import Job
from trainer.commands.submit.options import Options
from trainer.errors import ConfigError, ExitCode, Problem
from trainer.launchers.asking import configuration_problems, launcher_problems, request_of
from trainer.launchers.base import Launcher, takes_tasks
from trainer.launchers.environment import explained
from trainer.launchers.making import launcher_of
from trainer.launchers.request import Request
from trainer.launchers.script import keep
from trainer.launchers.submission import Submission
from trainer.run.directory import run_path

SCRIPT = "scripts/train.py"
SWEEPS = ".sweeps"


@dataclass(frozen=True)
class Batch:
    """Jobs of one submission. directory: the run's, or of the sweep."""

    jobs: tuple[Job, ...]
    launcher: Launcher
    directory: Path
    flags: tuple[str, ...]

    def request(self, directory: Path, name: str) -> Request:
        """What the launcher is asked for. Of a sweep the longest grace counts."""
        first = self.jobs[0]
        if len(self.jobs) == 1:
            return request_of(first.config, first.world, name, directory, (SCRIPT, *self.flags, *first.overrides))
        tasks = tuple(job.task for job in self.jobs)
        request = request_of(first.config, first.world, name, directory, (SCRIPT, *self.flags), tasks)
        return replace(request, grace_seconds=max(job.config.reliability.grace_seconds for job in self.jobs))


def act(jobs: Sequence[Job], options: Options) -> int:
    """The exit code. Raises RunError for what is refused; then nothing was submitted."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # composing has ended by ignoring them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    batches = _batches(jobs, options)
    if options.mode in ("--attach", "--status", "--cancel"):
        return max(_ask(batch, options) for batch in batches)
    requests = [(batch, _next(batch)) for batch in batches]
    if problems := _problems(requests):
        raise ConfigError(problems)
    if options.mode == "--dry-run":
        for batch, _ in requests:
            _render_only(batch)
        return int(ExitCode.DONE)
    made = [_submit(batch, options) for batch in batches]
    if options.mode != "--follow":
        return int(ExitCode.DONE)
    return max(follow(submission, options.again("--cancel")) for submission in made)


def _batches(jobs: Sequence[Job], options: Options) -> list[Batch]:
    """One for all jobs where the launcher takes that and they want the same of it; else one for each."""
    first = jobs[0]
    launcher = launcher_of(first.config.launcher)
    alike = all((job.config.launcher, job.world.size) == (first.config.launcher, first.world.size) for job in jobs)
    if len(jobs) > 1 and alike and takes_tasks(launcher):
        directory = Path(first.config.run.root, SWEEPS, first.base)
        return [Batch(tuple(jobs), launcher, directory, options.flags)]
    return [Batch((job,), launcher_of(job.config.launcher), run_path(job.config), options.flags) for job in jobs]


def _next(batch: Batch) -> Request:
    """The request that would be the next of its run."""
    number = max(attempts.numbers(batch.directory), default=0) + 1
    directory = attempts.attempt_directory(batch.directory, number)
    return batch.request(directory, attempts.name_of_attempt(batch.directory, number))


def _problems(requests: Sequence[tuple[Batch, Request]]) -> list[Problem]:
    """Of every job and of what would be submitted, each once."""
    found: dict[str, Problem] = {}
    for batch, request in requests:
        for job in batch.jobs:
            found |= {str(problem): problem for problem in configuration_problems(job.config, job.world)}
        if not any(problem.key.startswith("launcher") for problem in found.values()):
            found |= {str(problem): problem for problem in launcher_problems(batch.launcher, request)}
    return list(found.values())


def _render_only(batch: Batch) -> None:
    directory = attempts.launches(batch.directory) / attempts.DRY_RUN
    request = batch.request(directory, attempts.name_of_attempt(batch.directory, 0))
    files = batch.launcher.render(request)
    keep(directory, files)
    _describe(batch, request)
    tell("  environment")
    for line in explained(request.environment):
        tell(f"  {line}")
    for name in files:
        print(directory / name, flush=True)


def _submit(batch: Batch, options: Options) -> Submission:
    """Submit under the next number, and print the id. Raises LaunchError where a submission of the run is live."""
    with attempts.alone(batch.directory):
        attempts.refuse_live(batch.directory, f"{options.again('--attach')}; or --cancel in its place")
        submission = Submission(_next(batch), batch.jobs[0].config.launcher)
        submission = replace(submission, id=attempts.submit(batch.launcher, submission))
    _describe(batch, submission.request)
    if options.mode != "--follow":
        tell(f"  {'then':<8} the same command with --attach to follow it, --status, or --cancel; its id:")
        print(submission.id, flush=True)
    return submission


def _describe(batch: Batch, request: Request) -> None:
    first = batch.jobs[0]
    what = f"{len(batch.jobs)} runs" if len(batch.jobs) > 1 else f"run {first.config.run.name}"
    nodes = f"{request.nodes} node{'s' if request.nodes != 1 else ''} x {request.processes} process(es)"
    tell(f"{request.name}: {what}, recipe={first.config.recipe}, {nodes}, launcher={first.config.launcher.name}")
    for note in first.notes:
        tell(f"  {note}")
    tell(f"  {'files':<8} {os.path.relpath(request.directory)}")


def _ask(batch: Batch, options: Options) -> int:
    """Do something with the newest submission of a run."""
    submission = attempts.newest(batch.directory)
    if submission is None or submission.id is None:
        remedy = "submit it, by the same command without the flag"
        raise ConfigError(Problem("run.name", batch.directory.name, "has a submission to ask after", remedy))
    if options.mode == "--attach":
        return follow(submission, options.again("--cancel"))
    launcher = launcher_of(submission.launcher)
    if options.mode == "--cancel":
        launcher.cancel(submission.id)
    print(f"{submission.id} {ending(launcher.status(submission.id, submission.request))}", flush=True)
    return int(ExitCode.DONE)
