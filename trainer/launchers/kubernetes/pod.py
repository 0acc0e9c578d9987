"""The pod of a worker: one on each node, with all of the node's chips, and the shared directory of runs."""

from __future__ import annotations

from math import ceil
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.launchers.container import ENDING_SECONDS, Meeting, script
from trainer.launchers.kubernetes.names import MANAGED, WORKER, first_host, object_name
from trainer.launchers.request import Request
from trainer.trainium.topology import CORES_OF_A_DEVICE, instance_of
from trainer.trainium.torchrun import PORT

NEURON, EFA = "aws.amazon.com/neuron", "vpc.amazonaws.com/efa"
INSTANCE_LABEL = "node.kubernetes.io/instance-type"
GROUP = 1000
"""Of the image's user (docker/), to whom the volume's files belong."""


def template(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """A PodTemplateSpec."""
    return {"metadata": {"labels": dict(MANAGED)}, "spec": _spec(request, launcher)}


def _spec(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    settings, name = launcher.kubernetes, object_name(request.name)
    worker = container(WORKER, script(request, launcher, Meeting(first_host(name), name)), request, settings)
    worker |= {
        "ports": [{"name": "rendezvous", "containerPort": PORT}],
        "resources": resources(settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": ceil(request.grace_seconds) + ENDING_SECONDS,
        "automountServiceAccountToken": False,
        **around([worker], settings),
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return spec | placement(settings)


def around(containers: list[dict[str, Any]], settings: KubernetesConfig) -> dict[str, Any]:
    """What every pod of ours has: an ordinary user, and volumes that this user may write."""
    return {
        "securityContext": {"runAsNonRoot": True, "fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
        "containers": containers,
        "volumes": volumes(settings),
    }


def container(name: str, lines: str, request: Request, settings: KubernetesConfig) -> dict[str, Any]:
    """What every container of ours has. lines: of shell."""
    found: dict[str, Any] = {
        "name": name,
        "image": settings.image,
        "workingDir": settings.directory,
        "command": ["bash", "-c", as_is(lines)],
        "env": [{"name": variable.name, "value": as_is(variable.value)} for variable in request.environment],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts(settings),
    }
    if settings.secret:
        found["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    return found


def as_is(text: str) -> str:
    """A text that Kubernetes gives to the container unchanged: it would replace $(NAME), and $$ by $."""
    return text.replace("$", "$$")


def resources(settings: KubernetesConfig) -> dict[str, Any]:
    """Requests equal to limits: devices have no other way."""
    found = _devices(settings) | dict(settings.resources)
    return {"limits": found, "requests": dict(found)} if found else {}


def _devices(settings: KubernetesConfig) -> dict[str, str]:
    instance = instance_of(settings.instance, 0)
    if instance is None:
        return {}
    chips = {NEURON: str(instance.cores // CORES_OF_A_DEVICE)}
    return chips | ({EFA: str(instance.efa)} if instance.efa else {})


def volumes(settings: KubernetesConfig) -> list[dict[str, Any]]:
    """/dev/shm in memory, and the claim for runs."""
    found: list[dict[str, Any]] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}}
    ]
    if settings.volume_claim:
        found.append({"name": "runs", "persistentVolumeClaim": {"claimName": settings.volume_claim}})
    return found


def mounts(settings: KubernetesConfig) -> list[dict[str, Any]]:
    """Where they are seen."""
    found = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    if settings.volume_claim:
        found.append({"name": "runs", "mountPath": settings.volume_path})
    return found


def placement(settings: KubernetesConfig) -> dict[str, Any]:
    """On which nodes a pod may run."""
    selector = {INSTANCE_LABEL: settings.instance} if settings.instance else {}
    taints = [*_devices(settings), *settings.tolerate]
    found: dict[str, Any] = {}
    if selector | settings.node_selector:
        found["nodeSelector"] = selector | settings.node_selector
    if taints:
        found["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in taints]
    return found
