"""What a container of a job runs: a few lines of shell that become the launcher; and where things lie in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.launcher_batch import BatchConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.errors import Problem
from trainer.launchers.environment import shell
from trainer.launchers.request import Request
from trainer.launchers.script import LAUNCH, unreadable
from trainer.trainium.topology import instance_of
from trainer.trainium.torchrun import PORT

ENDING_SECONDS = 30
"""Beside grace_seconds: for scripts/launch.py to end its workers, agree with the other nodes and write exit.json."""
SHORTEST_SECONDS = 60
"""Of a job with a limit: Batch takes no shorter one."""


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a job find each other. Both are words of shell, in which variables are still replaced."""

    host: str
    """Address of the first node."""
    id: str
    """Keeps apart the jobs that meet at one address."""
    lines: tuple[str, ...] = ()
    """Of shell before it, to find them out."""


@dataclass(frozen=True)
class Volume:
    """The shared directory of runs, as an engine's settings name it."""

    key: str
    """Of what is mounted."""
    value: str | None
    path: str
    """Where it is mounted."""
    directory: str
    """Where the project lies, and commands start."""


def script(request: Request, launcher: LauncherConfig, meeting: Meeting) -> str:
    """The lines of shell. The last one replaces the shell: it hears the signals, and its code is the container's."""
    python = launcher.python or "python"
    if request.processes == 0:
        words, place = [python], ""
    elif request.nodes == 1:
        words, place = [python, LAUNCH, "--standalone"], ""
    else:
        words = [python, LAUNCH, "--nnodes", str(request.nodes), "--rdzv_backend", "c10d"]
        place = f" --rdzv_endpoint {meeting.host}:{PORT} --rdzv_id {meeting.id}"
    workers = f" --nproc_per_node {request.processes}" if request.processes else ""
    before = meeting.lines if place else ()
    last = f"exec {shlex.join(words)}{place}{workers} {shlex.join(request.command)}"
    return "\n".join([*shell(()), *launcher.setup, *before, last]) + "\n"


def seconds_before_the_limit(request: Request) -> int | None:
    """When a job is asked to stop, so that it has ended within limit_minutes. None: there is no limit."""
    if request.limit_minutes is None:
        return None
    return round(request.limit_minutes * 60 - request.grace_seconds) - ENDING_SECONDS


def problems(
    request: Request, launcher: LauncherConfig, settings: KubernetesConfig | BatchConfig, key: str
) -> Iterator[Problem]:
    """What no engine of containers can start. key: of the settings."""
    image, kind = settings.image, instance_of(settings.instance, 0)
    if not image or any(letter.isspace() for letter in image):
        remedy = f"build one (docker/), push it, set {key}.image"
        yield Problem(f"{key}.image", image, "names the image that nodes start", remedy)
    if kind is not None and not kind.efa and request.nodes > 1:
        rule = "has EFA devices: several nodes of trn1 exchange over them"
        remedy = f"{key}.instance=trn1.32xlarge, or launcher.nodes=1"
        yield Problem(f"{key}.instance", settings.instance, rule, remedy)
    seconds = seconds_before_the_limit(request)
    if seconds is not None and seconds < SHORTEST_SECONDS:
        least = (request.grace_seconds + ENDING_SECONDS + SHORTEST_SECONDS) / 60
        rule = f"at least {least:g}: a minute, reliability.grace_seconds and {ENDING_SECONDS} s to end"
        yield Problem("launcher.limit_minutes", request.limit_minutes, rule, "raise it, or leave it unset")
    yield from unreadable(script(request, launcher, Meeting("host", "id")))


def lost_runs(request: Request, volume: Volume) -> Iterator[Problem]:
    """A run that no other node, and no later job, would find."""
    if request.run is None:
        return
    if not volume.value:
        rule = "names what is mounted for runs: a container's own files are lost with it"
        yield Problem(volume.key, volume.value, rule, "make one that all nodes can write, and name it")
        return
    inside = _inside(request.run, request.working_directory, volume.directory)
    if not inside.is_relative_to(volume.path):
        rule = f"lies below {volume.path} in the container, where {volume.value} is mounted; it is {inside}"
        remedy = f"run.root={volume.path}, or mount it elsewhere: {volume.key.rpartition('.')[0]}.volume_path"
        yield Problem("run.root", str(request.run.parent), rule, remedy)


def _inside(run: Path, working_directory: Path, directory: str) -> PurePosixPath:
    """Where a run lies in the container: relative to where its command starts, as on this machine."""
    whole = working_directory / run
    below = whole.is_relative_to(working_directory)
    return PurePosixPath(directory, whole.relative_to(working_directory)) if below else PurePosixPath(whole)
