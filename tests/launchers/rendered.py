"""What the launchers of clusters render for a few requests; tests/golden/launchers holds the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_batch import BatchConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.launchers import environment
from trainer.launchers.batch.launcher import BatchLauncher
from trainer.launchers.batch.schedule import schedule
from trainer.launchers.kubernetes.cron import access, cronjob
from trainer.launchers.kubernetes.launcher import KubernetesLauncher
from trainer.launchers.request import Request
from trainer.trainium.environment import Job, Variable, variables

GOLDEN = Path(__file__).parents[1] / "golden" / "launchers"
IMAGE = "123456789012.dkr.ecr.us-west-2.amazonaws.com/trainer:1"
TRAIN = ("scripts/train.py", "recipe=llama3_8b_lora", "run.name=nightly")
ONE = Variable("PYTHONUNBUFFERED", "1", "a line of the log is there when it is printed", "Python's own manual")


def request(**changed: Any) -> Request:
    """A run on four trn1.32xlarge."""
    settings: dict[str, Any] = {
        "name": "nightly-20260930",
        "command": TRAIN,
        "directory": Path("runs/nightly/launch/1"),
        "nodes": 4,
        "processes": 32,
        "limit_minutes": 600.0,
        "run": Path("runs/nightly"),
        "environment": variables(Job(nodes=4)),
        "working_directory": Path("/home/user/trainer"),
    }
    return Request(**settings | changed)


def on_cpu(**changed: Any) -> Request:
    """A run of two processes on one node, of any kind."""
    tiny = ("scripts/train.py", "recipe=tiny", "run.name=it's tiny")
    settings = {"command": tiny, "nodes": 1, "processes": 2, "limit_minutes": None, "environment": (ONE,)}
    return request(**settings | changed)


def tick(**changed: Any) -> Request:
    """A command on a schedule."""
    settings = {"name": "tick", "command": ("scripts/jobs.py", "tick"), "processes": 0, "run": None}
    return on_cpu(**settings | changed)


def kubernetes(**changed: Any) -> LauncherConfig:
    """Settings for a cluster."""
    return LauncherConfig(
        name="kubernetes", kubernetes=KubernetesConfig(**{"image": IMAGE, "volume_claim": "runs", **changed})
    )


def of_kubernetes() -> dict[str, str]:
    """Path below GOLDEN -> text."""
    small = {"instance": None, "resources": {"cpu": "4", "memory": "8Gi"}, "secret": "wandb"}
    existing = {"kind": "trainjob", "runtime": "torch-distributed", "service_account": "s3", "suspend": True}
    cases = {
        "jobset": (request(), kubernetes(queue="trn1", tolerate=["spot"], node_selector={"pool": "a"})),
        "jobset_cpu": (on_cpu(), kubernetes(**small)),
        "trainjob": (request(), kubernetes(kind="trainjob")),
        "trainjob_of_runtime": (request(), kubernetes(**existing)),
    }
    found = {}
    for case, (asked, config) in cases.items():
        for name, text in KubernetesLauncher(config).render(asked).items():
            if name != environment.FILE:
                found[f"kubernetes/{case}/{name}"] = text
    found["kubernetes/tick/cronjob.yaml"] = cronjob(tick(), kubernetes(), "*/5 * * * *", "Europe/Berlin")
    found["kubernetes/tick/access.yaml"] = access(kubernetes())
    return found


def batch(**changed: Any) -> LauncherConfig:
    """Settings for AWS Batch."""
    settings = {"image": IMAGE, "queue": "trn1", "file_system": "fs-0123456789abcdef0", "region": "us-west-2"}
    return LauncherConfig(name="batch", batch=BatchConfig(**settings | changed))


def of_batch() -> dict[str, str]:
    """Path below GOLDEN -> text."""
    role = "arn:aws:iam::123456789012:role/{}"
    secret = {"WANDB_API_KEY": "arn:aws:secretsmanager:us-west-2:123456789012:secret:wandb-AbCdEf"}
    small = {"instance": None, "vcpus": 4, "memory_mib": 8192, "share": "team", "secrets": secret}
    roles = {"job_role": role.format("job"), "execution_role": role.format("start")}
    cases = {
        "nodes": (request(), batch(security_groups=["sg-0123456789abcdef0"])),
        "one_node": (on_cpu(), batch(**small, **roles, file_system=None, host_path="/fsx")),
    }
    found = {}
    for case, (asked, config) in cases.items():
        for name, text in BatchLauncher(config).render(asked).items():
            if name != environment.FILE:
                found[f"batch/{case}/{name}"] = text
    scheduled = schedule(tick(), batch(schedule_role=role.format("schedule")), "*/5 * * * *", "Europe/Berlin")
    return found | {f"batch/tick/{name}": text for name, text in scheduled.items()}


def everything() -> dict[str, str]:
    """Of all engines here."""
    return of_kubernetes() | of_batch()
