"""A CronJob for a command on a schedule (scripts/jobs.py tick), and what it may do in the cluster."""

from __future__ import annotations

from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.launchers.container import Meeting, script
from trainer.launchers.kubernetes.manifest import to_yaml
from trainer.launchers.kubernetes.names import MANAGED, object_name
from trainer.launchers.kubernetes.pod import around, container
from trainer.launchers.request import Request

ACCOUNT = "trainer-tick"
LONGEST_SECONDS = 3600
"""Of one command: one that hangs would hold up all that come after it."""
LATEST_SECONDS = 600
"""After its time: a later one is left out, and the next comes."""
RULES = (
    ("jobset.x-k8s.io", ("jobsets",), ("create", "get", "list", "delete")),
    ("trainer.kubeflow.org", ("trainjobs", "trainingruntimes"), ("create", "get", "list", "delete", "patch")),
    ("", ("pods", "pods/log"), ("get", "list")),
)
"""API group, resources and what is done with them by launcher=kubernetes."""
_GROUP = "rbac.authorization.k8s.io"


def cronjob(request: Request, launcher: LauncherConfig, schedule: str, time_zone: str) -> str:
    """YAML of a CronJob that starts the request's command once, without accelerators, and never twice at a time.

    schedule: five fields of cron, read in time_zone (an IANA name). The command may submit further jobs.
    """
    settings = launcher.kubernetes
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
    command = container("command", script(request, launcher, Meeting("", "")), request, settings)
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account or ACCOUNT,
        **around([command | {"resources": resources}], settings),
    }
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": LONGEST_SECONDS,
        "template": {"metadata": {"labels": dict(MANAGED)}, "spec": pod},
    }
    spec = {
        "schedule": schedule,
        "timeZone": time_zone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": LATEST_SECONDS,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": dict(MANAGED)}, "spec": job},
    }
    metadata = _metadata(object_name(request.name), settings.namespace)
    return to_yaml([{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}])


def access(launcher: LauncherConfig) -> str:
    """YAML of a ServiceAccount that may make, see and end jobs in the namespace, and nothing else."""
    namespace = launcher.kubernetes.namespace
    metadata = _metadata(launcher.kubernetes.service_account or ACCOUNT, namespace)
    rules = [{"apiGroups": [group], "resources": [*what], "verbs": [*verbs]} for group, what, verbs in RULES]
    subject = {"kind": "ServiceAccount", "name": metadata["name"], "namespace": namespace}
    role = {"apiGroup": _GROUP, "kind": "Role", "name": metadata["name"]}
    return to_yaml(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{_GROUP}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "subjects": [subject],
                "roleRef": role,
            },
        ]
    )


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": dict(MANAGED)}
