"""launcher=batch: a job of AWS Batch, submitted, found and ended through boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.launchers import environment
from trainer.launchers.base import LaunchError, State, Status
from trainer.launchers.batch import aws, rules
from trainer.launchers.batch.definition import definition, submission
from trainer.launchers.batch.machines import launch_template
from trainer.launchers.batch.watching import STATES, status_of, streams
from trainer.launchers.request import Request
from trainer.launchers.script import keep

DEFINITION, SUBMISSION, TEMPLATE = "job-definition.json", "submit-job.json", "launch-template.json"
AT_ONCE = 100
"""Jobs that describe_jobs takes in one call."""


class BatchLauncher:
    """An id is Batch's own, of the whole job."""

    takes_tasks = False
    poll_seconds = 10.0

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config

    @cached_property
    def _batch(self) -> Any:
        return aws.client("batch", self._config.batch.region)

    @cached_property
    def _logs(self) -> Any:
        return aws.client("logs", self._config.batch.region)

    def render(self, request: Request) -> dict[str, str]:
        """The parameters of each call as JSON; the launch template is for the compute environment, and made once."""
        files = {DEFINITION: definition(request, self._config), SUBMISSION: submission(request, self._config)}
        if (template := launch_template(request, self._config)) is not None:
            files[TEMPLATE] = template
        texts = {name: json.dumps(parameters, indent=2) + "\n" for name, parameters in files.items()}
        return {**texts, environment.FILE: environment.recorded(request.environment)}

    def problems(self, request: Request, files: Mapping[str, str]) -> list[Problem]:
        """Against our rules and botocore's models of the calls. Asks nobody."""
        return list(rules.problems(request, self._config, files))

    def submit(self, request: Request) -> str:
        """Register the definition, and submit. Raises LaunchError, also where a job has the name.

        Batch itself takes a name twice: of two hosts that submit in the same second both may succeed.
        """
        files = self.render(request)
        keep(request.directory, files)
        if (there := self.find(request.name)) is not None:
            rule = f"the name of one job only; there is {there}"
            raise LaunchError(Problem("name", request.name, rule, "find it by this name, or take another"))
        with aws.understood("register_job_definition"):
            revision = self._batch.register_job_definition(**json.loads(files[DEFINITION]))["jobDefinitionArn"]
        with aws.understood("submit_job"):
            parameters = json.loads(files[SUBMISSION]) | {"jobDefinition": revision}
            return str(self._batch.submit_job(**parameters)["jobId"])

    def find(self, name: str) -> str | None:
        """The newest of the name: Batch lists a job for a week after its end."""
        filters = [{"name": "JOB_NAME", "values": [name]}]
        with aws.understood("list_jobs"):
            pages = self._batch.get_paginator("list_jobs").paginate(jobQueue=self._config.batch.queue, filters=filters)
            found = [job for page in pages for job in page["jobSummaryList"] if job["jobName"] == name]
        newest = max(found, key=lambda job: job.get("createdAt", 0), default=None)
        return None if newest is None else str(newest["jobId"])

    def status(self, id: str, request: Request) -> Status:
        """As Batch says, and the run's exit.json where this machine sees it."""
        try:
            found = self._described([id])
            if id not in found:
                return Status(State.UNKNOWN, None, "Batch knows this job no longer")
            main = self._described([f"{id}#0"]) if request.nodes > 1 else found
            return status_of(found[id], next(iter(main.values()), found[id]), request)
        except LaunchError as error:
            return Status(State.UNKNOWN, None, "; ".join(problem.rule for problem in error.problems))

    def cancel(self, id: str) -> None:
        """Its containers are asked to stop, and killed after the machine's ECS_CONTAINER_STOP_TIMEOUT."""
        with aws.understood("terminate_job"):
            self._batch.terminate_job(jobId=id, reason="cancelled by trainer")

    def logs(self, id: str, request: Request) -> Iterator[str]:
        """Of the first node, start after start; when the job is over also of the others, after the node's number.

        Who follows a job counts lines, so they may only be added at the end.
        """
        ids = [id, *(f"{id}#{node}" for node in range(request.nodes) if request.nodes > 1)]
        found = self._described(ids)
        over = id in found and STATES.get(found[id]["status"]) is State.ENDED
        for node in range(request.nodes if over else 1):
            before = f"node {node}: " if node else ""
            for stream in streams(found.get(ids[-request.nodes :][node], {})):
                yield from (before + line for line in self._lines(stream))

    def _described(self, ids: list[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        with aws.understood("describe_jobs"):
            for first in range(0, len(ids), AT_ONCE):
                jobs = self._batch.describe_jobs(jobs=ids[first : first + AT_ONCE])["jobs"]
                found |= {job["jobId"]: job for job in jobs}
        return found

    def _lines(self, stream: str) -> Iterator[str]:
        """The end of a stream answers with the token that it was given."""
        where = {"logGroupName": self._config.batch.log_group, "logStreamName": stream, "startFromHead": True}
        token: str | None = None
        while True:
            with aws.understood("get_log_events"):
                page = self._logs.get_log_events(**where, **({} if token is None else {"nextToken": token}))
            yield from (str(event["message"]).rstrip("\r\n") for event in page["events"])
            if page["nextForwardToken"] == token:
                return
            token = page["nextForwardToken"]
