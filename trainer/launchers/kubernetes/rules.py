"""What can be known of a request for Kubernetes before the cluster sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.errors import Problem
from trainer.launchers import container
from trainer.launchers.request import Request

KEY = "launcher.kubernetes"
KINDS = ("jobset", "trainjob")
NAMES = ("namespace", "volume_claim", "secret", "service_account", "queue", "runtime")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
LONGEST = 253


def problems(request: Request, launcher: LauncherConfig) -> Iterator[Problem]:
    """All of them."""
    settings = launcher.kubernetes
    yield from container.problems(request, launcher, settings, KEY)
    volume = container.Volume(f"{KEY}.volume_claim", settings.volume_claim, settings.volume_path, settings.directory)
    yield from container.lost_runs(request, volume)
    yield from _kind(settings)
    yield from _names(settings)
    yield from _numbers(settings)


def _kind(settings: KubernetesConfig) -> Iterator[Problem]:
    if settings.kind not in KINDS:
        yield Problem(f"{KEY}.kind", settings.kind, f"one of {', '.join(KINDS)}", f"{KEY}.kind=jobset")
    if settings.runtime and settings.kind != "trainjob":
        rule = "a runtime is what a TrainJob refers to"
        yield Problem(f"{KEY}.runtime", settings.runtime, rule, f"{KEY}.kind=trainjob, or leave it unset")
    if settings.runtime and settings.secret:
        rule = "a runtime of the cluster's cannot be given a whole secret"
        yield Problem(f"{KEY}.secret", settings.secret, rule, f"leave {KEY}.runtime unset: one is made with the job")


def _names(settings: KubernetesConfig) -> Iterator[Problem]:
    for field in NAMES:
        value = getattr(settings, field)
        if value is not None and (len(value) > LONGEST or not NAME.fullmatch(value)):
            rule = f"a name in Kubernetes: small letters, digits, '-' and '.', at most {LONGEST}"
            yield Problem(f"{KEY}.{field}", value, rule, "the name as kubectl get shows it")


def _numbers(settings: KubernetesConfig) -> Iterator[Problem]:
    quantities = {"shared_memory": settings.shared_memory}
    quantities |= {f"resources.{name}": value for name, value in settings.resources.items()}
    for field, value in quantities.items():
        if not QUANTITY.fullmatch(str(value)):
            yield Problem(f"{KEY}.{field}", value, "a quantity of Kubernetes", "such as 16Gi, 500m or 8")
    for field in ("restarts", "keep_days"):
        if (number := getattr(settings, field)) < 0:
            yield Problem(f"{KEY}.{field}", number, "at least 0", f"{KEY}.{field}=0")
