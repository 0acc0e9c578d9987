"""A TrainJob of Kubeflow Trainer 2.2 (trainer.kubeflow.org/v1alpha1), and the runtime that it refers to.

Without launcher.kubernetes.runtime a TrainingRuntime goes with the job: the JobSet that we render anyway, so that
codes, grace and restarts are the same. A ClusterTrainingRuntime of the cluster's keeps its own, and gets volumes and
places through runtimePatches. Processes are started by our launcher: no numProcPerNode, no torch policy.
"""

from __future__ import annotations

from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.launchers.container import seconds_before_the_limit
from trainer.launchers.kubernetes.jobset import metadata, spec
from trainer.launchers.kubernetes.names import MANAGED, WORKER, object_name
from trainer.launchers.kubernetes.pod import mounts, placement, template, volumes
from trainer.launchers.request import Request

API = "trainer.kubeflow.org/v1alpha1"
STEP_LABEL = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
MANAGER = "trainer.launchers/submit"
"""Who patches: a domain and a path."""


def trainjob(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """The object."""
    settings = launcher.kubernetes
    container = template(request, launcher)["spec"]["containers"][0]
    body: dict[str, Any] = {
        "runtimeRef": {
            "apiGroup": API.partition("/")[0],
            "kind": "ClusterTrainingRuntime" if settings.runtime else "TrainingRuntime",
            "name": settings.runtime or object_name(request.name),
        },
        "suspend": settings.suspend,
        "trainer": {
            "numNodes": request.nodes,
            "image": container["image"],
            "command": container["command"],
            "env": container["env"],
            **({"resourcesPerNode": container["resources"]} if container["resources"] else {}),
        },
    }
    if (seconds := seconds_before_the_limit(request)) is not None:
        body["activeDeadlineSeconds"] = seconds
    if settings.runtime:
        body["runtimePatches"] = [_patch(launcher)]
    return {"apiVersion": API, "kind": "TrainJob", "metadata": metadata(request, launcher), "spec": body}


def training_runtime(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """The runtime of this job alone."""
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {
            "name": object_name(request.name),
            "namespace": launcher.kubernetes.namespace,
            "labels": dict(MANAGED),
        },
        "spec": {
            "mlPolicy": {"numNodes": request.nodes},
            "template": {"spec": spec(request, launcher, None, STEP_LABEL)},
        },
    }


def _patch(launcher: LauncherConfig) -> dict[str, Any]:
    """What a runtime of the cluster's does not know of us. A container's variables may not be patched here."""
    settings = launcher.kubernetes
    pod: dict[str, Any] = placement(settings) | {
        "volumes": volumes(settings),
        "containers": [{"name": WORKER, "volumeMounts": mounts(settings)}],
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    job = {"name": WORKER, "template": {"spec": {"template": {"spec": pod}}}}
    return {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}
