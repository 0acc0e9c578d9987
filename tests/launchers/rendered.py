"""What the launchers of clusters render for a few requests; tests/golden/launchers holds the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.launchers import environment
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


def everything() -> dict[str, str]:
    """Of all engines here."""
    return of_kubernetes()
