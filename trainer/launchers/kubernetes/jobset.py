"""A JobSet (jobset.x-k8s.io/v1alpha2): one Indexed Job of as many pods as nodes, and what follows from a pod's end.

A worker that ends ends the Job (backoffLimit 0), and JobSet starts all nodes again: a single new pod would not be taken
in where the first node was lost (docs/launching.md). Why it ended is the Job's failure message, which JobSet's rules
read; its words are Kubernetes' own (pkg/controller/job/pod_failure_policy.go).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import ExitCode
from trainer.launchers.container import seconds_before_the_limit
from trainer.launchers.kubernetes.names import MANAGED, QUEUE_LABEL, WORKER, object_name
from trainer.launchers.kubernetes.pod import template
from trainer.launchers.request import Request

API = "jobset.x-k8s.io/v1alpha2"
FINAL = (ExitCode.CONFIG, ExitCode.DATA, ExitCode.NONFINITE, ExitCode.NO_CHECKPOINT, ExitCode.GATE)
"""Codes after which the same command would end the same way (docs/exit_codes.md)."""
DAY = 86400


def jobset(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """The object."""
    body = spec(request, launcher, seconds_before_the_limit(request))
    body |= {"suspend": launcher.kubernetes.suspend}
    return {"apiVersion": API, "kind": "JobSet", "metadata": metadata(request, launcher), "spec": body}


def metadata(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """Name, namespace and labels. Kueue finds its queue by the label."""
    labels = MANAGED | ({QUEUE_LABEL: launcher.kubernetes.queue} if launcher.kubernetes.queue else {})
    return {"name": object_name(request.name), "namespace": launcher.kubernetes.namespace, "labels": labels}


def spec(
    request: Request, launcher: LauncherConfig, seconds: int | None, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """A JobSetSpec, also that of a TrainingRuntime. seconds: until the Job is asked to stop. labels: of the Job."""
    job: dict[str, Any] = {"spec": _job(request, launcher, seconds)}
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": _failure_policy(launcher.kubernetes.restarts),
        "ttlSecondsAfterFinished": round(launcher.kubernetes.keep_days * DAY),
        "replicatedJobs": [
            {"name": WORKER, "replicas": 1, "template": ({"metadata": {"labels": labels}} if labels else {}) | job}
        ],
    }


def _job(request: Request, launcher: LauncherConfig, seconds: int | None) -> dict[str, Any]:
    return {
        "completionMode": "Indexed",
        "completions": request.nodes,
        "parallelism": request.nodes,
        "backoffLimit": 0,
        **({} if seconds is None else {"activeDeadlineSeconds": seconds}),
        "podFailurePolicy": {
            "rules": [
                _on_exit(FINAL),
                _on_exit([ExitCode.PREEMPTED]),
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": template(request, launcher),
    }


def _on_exit(codes: Iterable[ExitCode]) -> dict[str, Any]:
    values = [int(code) for code in codes]
    return {"action": "FailJob", "onExitCodes": {"containerName": WORKER, "operator": "In", "values": values}}


def _failure_policy(restarts: int) -> dict[str, Any]:
    """What becomes of the set when its Job has failed. A failure that no rule names (a crash) starts it again."""
    stopped = [f"failed with exit code {int(ExitCode.PREEMPTED)} ", "has condition DisruptionTarget "]
    return {
        "maxRestarts": restarts,
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "preempted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": stopped,
            },
            {
                "name": "final",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
            },
        ],
    }
