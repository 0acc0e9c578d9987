"""launcher=kubernetes: a JobSet or a TrainJob, made, found and ended through kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.launchers import environment
from trainer.launchers.base import LaunchError, State, Status
from trainer.launchers.kubernetes import rules
from trainer.launchers.kubernetes.jobset import jobset
from trainer.launchers.kubernetes.kubectl import Kubectl
from trainer.launchers.kubernetes.manifest import to_yaml
from trainer.launchers.kubernetes.names import JOBSET_LABEL, object_name
from trainer.launchers.kubernetes.printing import lines
from trainer.launchers.kubernetes.trainjob import training_runtime, trainjob
from trainer.launchers.kubernetes.watching import status_of
from trainer.launchers.request import Request
from trainer.launchers.script import keep

JOBSET, TRAINJOB, RUNTIME = "jobset.yaml", "trainjob.yaml", "runtime.yaml"
RESOURCES = {"jobset": "jobsets.jobset.x-k8s.io", "trainjob": "trainjobs.trainer.kubeflow.org"}
RUNTIMES = "trainingruntimes.trainer.kubeflow.org"


class KubernetesLauncher:
    """An id is kind/name, in the namespace of the settings."""

    takes_tasks = False
    poll_seconds = 5.0

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config
        self._kubectl = Kubectl(config.kubernetes)

    def render(self, request: Request) -> dict[str, str]:
        """The manifests, and the environment with its reasons."""
        if self._config.kubernetes.kind == "jobset":
            found = {JOBSET: to_yaml([jobset(request, self._config)])}
        else:
            found = {TRAINJOB: to_yaml([trainjob(request, self._config)])}
            if not self._config.kubernetes.runtime:
                found[RUNTIME] = to_yaml([training_runtime(request, self._config)])
        return {**found, environment.FILE: environment.recorded(request.environment)}

    def problems(self, request: Request, files: Mapping[str, str]) -> list[Problem]:
        """Against the rules of a cluster, as far as they are known without one."""
        return list(rules.problems(request, self._config))

    def submit(self, request: Request) -> str:
        """Make the objects; the server checks every field. Raises LaunchError, also where a job has the name."""
        files = self.render(request)
        keep(request.directory, files)
        if (there := self.find(request.name)) is not None:
            rule = f"the name of one job only; there is {there}"
            raise LaunchError(Problem("name", request.name, rule, "find it by this name, or take another"))
        if RUNTIME in files:
            self._kubectl.call("apply", "--filename=-", "--validate=strict", text=files[RUNTIME])
        manifest = files[JOBSET] if JOBSET in files else files[TRAINJOB]
        self._kubectl.call("create", "--filename=-", "--validate=strict", text=manifest)
        return self._id(request.name)

    def _id(self, name: str) -> str:
        return f"{self._config.kubernetes.kind}/{object_name(name)}"

    def find(self, name: str) -> str | None:
        """By the name, until keep_days after its end."""
        return self._id(name) if self._get(self._id(name)) is not None else None

    def status(self, id: str, request: Request) -> Status:
        """As the cluster says, and the run's exit.json where this machine sees it."""
        try:
            found = self._get(id)
            if found is None:
                namespace = self._config.kubernetes.namespace
                return Status(State.UNKNOWN, None, f"{id} is not in namespace {namespace}: it was deleted")
            return status_of(found, self._pods(id), request)
        except LaunchError as error:
            return Status(State.UNKNOWN, None, "; ".join(problem.rule for problem in error.problems))

    def cancel(self, id: str) -> None:
        """Delete it: its workers are asked to stop, and save."""
        kind, _, name = id.partition("/")
        for resource in [RESOURCES[kind], *([RUNTIMES] if kind == "trainjob" else [])]:
            self._kubectl.call("delete", resource, name, "--ignore-not-found", "--wait=false")

    def logs(self, id: str, request: Request) -> Iterator[str]:
        """Of the first node; when the job is over also of the others, each line after its pod's name."""
        found, pods = self._get(id), self._pods(id)
        over = found is None or status_of(found, pods, request).state is State.ENDED
        return lines(self._kubectl, pods, request.directory, over)

    def _get(self, id: str) -> dict[str, Any] | None:
        kind, _, name = id.partition("/")
        text = self._kubectl.call("get", RESOURCES[kind], name, "--ignore-not-found", "--output=json")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def _pods(self, id: str) -> list[dict[str, Any]]:
        """What is left of them. JobSet deletes those of a start that it has given up."""
        selector = f"--selector={JOBSET_LABEL}={id.partition('/')[2]}"
        found: list[dict[str, Any]] = json.loads(self._kubectl.call("get", "pods", selector, "--output=json"))["items"]
        return found
