"""What can be known of a request for AWS Batch before AWS sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_batch import BatchConfig
from trainer.errors import Problem
from trainer.launchers import container
from trainer.launchers.batch import aws
from trainer.launchers.batch.containers import RESERVED
from trainer.launchers.batch.definition import MOST_ATTEMPTS
from trainer.launchers.request import Request

KEY = aws.KEY
CALLS = {
    "job-definition.json": ("batch", "RegisterJobDefinition"),
    "submit-job.json": ("batch", "SubmitJob"),
    "launch-template.json": ("ec2", "CreateLaunchTemplate"),
    "schedule.json": ("scheduler", "CreateSchedule"),
}
"""Rendered file -> the call that it is for."""
ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:\d*:\S+")
FILE_SYSTEM = re.compile(r"fs-[0-9a-f]{8,40}")
MOST_DEFINITION_BYTES = 30 * 1024
"""Of a job definition, that Batch takes."""


def problems(request: Request, launcher: LauncherConfig, files: Mapping[str, str]) -> Iterator[Problem]:
    """All of them."""
    settings = launcher.batch
    yield from container.problems(request, launcher, settings, KEY)
    place = settings.file_system or settings.host_path
    volume = container.Volume(f"{KEY}.file_system", place, settings.volume_path, settings.directory)
    yield from container.lost_runs(request, volume)
    yield from _settings(settings)
    for variable in request.environment:
        if variable.name.startswith(RESERVED):
            rule = f"names of variables that begin with {RESERVED} are Batch's own"
            yield Problem("launcher.environment", variable.name, rule, "take another name")
    if settings.queue and settings.image:  # botocore would say less clearly that they are missing
        yield from calls(files)


def _settings(settings: BatchConfig) -> Iterator[Problem]:
    if not settings.queue:
        rule = "names the job queue, or its ARN"
        yield Problem(f"{KEY}.queue", settings.queue, rule, "aws batch describe-job-queues lists them")
    if not 0 <= settings.restarts < MOST_ATTEMPTS:
        rule = f"0 to {MOST_ATTEMPTS - 1}: Batch starts a job {MOST_ATTEMPTS} times at most"
        yield Problem(f"{KEY}.restarts", settings.restarts, rule, f"{KEY}.restarts=3")
    if settings.file_system and not FILE_SYSTEM.fullmatch(settings.file_system):
        rule = "the id of an Amazon EFS file system: fs- and hexadecimal digits"
        yield Problem(f"{KEY}.file_system", settings.file_system, rule, "aws efs describe-file-systems lists them")
    roles = {field: getattr(settings, field) for field in ("job_role", "execution_role", "schedule_role")}
    for field, value in {**roles, **{f"secrets.{name}": arn for name, arn in settings.secrets.items()}}.items():
        if value is not None and not ARN.fullmatch(value):
            yield Problem(f"{KEY}.{field}", value, "an ARN: arn:aws:...", "the ARN, as AWS shows it")
    if settings.secrets and not settings.execution_role:
        rule = "names the role that reads launcher.batch.secrets"
        yield Problem(f"{KEY}.execution_role", None, rule, f"{KEY}.execution_role=arn:aws:iam::...:role/...")


def calls(files: Mapping[str, str]) -> Iterator[Problem]:
    """Rendered files against botocore's models of the calls that they are for."""
    try:
        for name in sorted(files.keys() & CALLS):
            service, operation = CALLS[name]
            if said := aws.mistakes(service, operation, json.loads(files[name])):
                rule = f"parameters of {operation}: {' '.join(said.split())}"
                yield Problem(KEY, name, rule, f"correct the values of {KEY}")
    except ImportError:
        yield aws.MISSING
    size = len(files.get("job-definition.json", ""))
    if size > MOST_DEFINITION_BYTES:
        rule = f"a job definition of at most {MOST_DEFINITION_BYTES} bytes; it has {size}"
        yield Problem("launcher.environment", "job-definition.json", rule, "move variables into the image")
