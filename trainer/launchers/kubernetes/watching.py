"""Where a JobSet or a TrainJob stands, by its status and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from trainer.launchers.base import State, Status
from trainer.launchers.ends import ended
from trainer.launchers.kubernetes.names import INDEX_LABEL, QUEUE_LABEL, WORKER
from trainer.launchers.request import Request

Object = Mapping[str, Any]


def status_of(found: Object, pods: Iterable[Object], request: Request) -> Status:
    """found: the JobSet or TrainJob. pods: those that are left of it."""
    conditions = _conditions(found)
    since = datetime.fromisoformat(found["metadata"]["creationTimestamp"].replace("Z", "+00:00")).timestamp()
    for name in ("Completed", "Complete"):
        if name in conditions:
            return ended(request, since, 0, conditions[name])
    if "Failed" in conditions:
        return ended(request, since, _code(pods), conditions["Failed"])
    if found["spec"].get("suspend"):
        queue = found["metadata"].get("labels", {}).get(QUEUE_LABEL)
        return Status(State.PENDING, None, f"waits in Kueue's queue {queue}" if queue else "is suspended")
    if any(job.get("ready") for job in _jobs(found)):
        return Status(State.RUNNING, None, _progress(found))
    return Status(State.PENDING, None, _obstacle(pods))


def ordered(pods: Iterable[Object]) -> list[Object]:
    """By the number of their node; pods of an earlier start first."""
    return sorted(pods, key=lambda pod: (int(pod["metadata"].get("labels", {}).get(INDEX_LABEL, 0)), _born(pod)))


def _born(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _conditions(found: Object) -> dict[str, str]:
    """Type -> message, of those that are true."""
    conditions = found.get("status", {}).get("conditions", [])
    return {c["type"]: c.get("message") or c.get("reason", "") for c in conditions if c["status"] == "True"}


def _jobs(found: Object) -> list[Object]:
    status = found.get("status", {})
    jobs: list[Object] = status.get("replicatedJobsStatus") or status.get("jobsStatus") or []
    return jobs


def _progress(found: Object) -> str:
    """A TrainJob may know how far it is."""
    status = found.get("status", {})
    percent = status.get("trainerStatus", {}).get("progressPercentage")
    restarts = status.get("restarts")
    said = [f"{percent} % done"] if percent is not None else []
    return ", ".join([*said, *([f"started again {restarts} times"] if restarts else [])]) or "all nodes are ready"


def _code(pods: Iterable[Object]) -> int | None:
    """Of the worker that ended first with one: the others' ends follow from it."""
    ends = [
        (end.get("finishedAt") or "", int(end["exitCode"]))
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses", [])
        if container["name"] == WORKER and (end := container.get("state", {}).get("terminated"))
    ]
    return next((code for _, code in sorted(ends) if code), None)


def _obstacle(pods: Iterable[Object]) -> str:
    """Why it does not run yet: the first pod that says something."""
    for pod in ordered(pods):
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            if waiting := container.get("state", {}).get("waiting"):
                return f"{pod['metadata']['name']}: {waiting.get('message') or waiting.get('reason', 'waits')}"
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{pod['metadata']['name']}: {condition.get('message', 'finds no node')}"
    return "its pods are being made"
