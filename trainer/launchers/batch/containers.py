"""A container of a job on AWS Batch: the devices of its machine, the shared directory of runs, the variables."""

from __future__ import annotations

import shlex
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_batch import BatchConfig
from trainer.errors import ExitCode
from trainer.launchers.container import Meeting, script
from trainer.launchers.request import Request
from trainer.trainium.topology import CORES_OF_A_DEVICE, instance_of

MAIN = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"
MEETING = Meeting(
    host='"$host"',
    id='"${AWS_BATCH_JOB_ID%%#*}-$AWS_BATCH_JOB_ATTEMPT"',
    lines=(f'host="${{{MAIN}:-localhost}}"  # absent on the main node, which keeps the store itself',),
)
"""A node's own AWS_BATCH_JOB_ID is the job's with # and its number after it. Attempts count from 1."""
RESERVED = "AWS_BATCH"
"""Beginning of the names of variables that Batch keeps for itself."""
OPEN_FILES = 1048576


def container(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """Container properties, of a node range or of a job of one container."""
    settings = launcher.batch
    found: dict[str, Any] = {
        "image": settings.image,
        "command": ["bash", "-c", f"{_enter(settings)}\n{script(request, launcher, MEETING)}"],
        "environment": [{"name": variable.name, "value": variable.value} for variable in request.environment],
        "resourceRequirements": [
            {"type": "VCPU", "value": str(settings.vcpus)},
            {"type": "MEMORY", "value": str(settings.memory_mib)},
        ],
        "linuxParameters": {
            "initProcessEnabled": True,
            "sharedMemorySize": settings.shared_memory_mib,
            "devices": _devices(settings),
        },
        "ulimits": [_unlimited("memlock", -1), _unlimited("nofile", OPEN_FILES)],
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": settings.log_group}},
        **_runs(settings),
    }
    if settings.secrets:
        found["secrets"] = [{"name": name, "valueFrom": arn} for name, arn in settings.secrets.items()]
    roles = {"jobRoleArn": settings.job_role, "executionRoleArn": settings.execution_role}
    return found | {key: role for key, role in roles.items() if role}


def _enter(settings: BatchConfig) -> str:
    """Batch starts a container where its image says."""
    return f"cd {shlex.quote(settings.directory)} || exit {int(ExitCode.CONFIG)}"


def _unlimited(name: str, limit: int) -> dict[str, Any]:
    return {"name": name, "softLimit": limit, "hardLimit": limit}


def _devices(settings: BatchConfig) -> list[dict[str, Any]]:
    """Neuron chips, and the EFA devices that the launch template gave the machine."""
    instance = instance_of(settings.instance, 0)
    if instance is None:
        return []
    chips = [f"/dev/neuron{number}" for number in range(instance.cores // CORES_OF_A_DEVICE)]
    network = [f"/dev/infiniband/uverbs{number}" for number in range(instance.efa)]
    return [
        {"hostPath": path, "containerPath": path, "permissions": ["READ", "WRITE", "MKNOD"]}
        for path in [*chips, *network]
    ]


def _runs(settings: BatchConfig) -> dict[str, Any]:
    """The shared directory, if there is one."""
    if settings.file_system:
        place: dict[str, Any] = {
            "efsVolumeConfiguration": {"fileSystemId": settings.file_system, "transitEncryption": "ENABLED"}
        }
    elif settings.host_path:
        place = {"host": {"sourcePath": settings.host_path}}
    else:
        return {}
    return {
        "volumes": [{"name": "runs", **place}],
        "mountPoints": [{"sourceVolume": "runs", "containerPath": settings.volume_path, "readOnly": False}],
    }
