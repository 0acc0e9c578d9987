"""Files that let a machine or a cluster call tick every minute: systemd, crontab, Kubernetes, EventBridge Scheduler."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from trainer.config.groups.launcher_batch import BatchConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.errors import ConfigError, Problem
from trainer.jobs.work import Job
from trainer.launchers.making import launcher_of
from trainer.launchers.request import Request

HERE, THERE = ("systemd", "crontab"), ("kubernetes", "batch")
KINDS = HERE + THERE
NAME = "trainer-jobs"
EVERY_MINUTE = "* * * * *"


def timers(
    kind: str, jobs: str, ledger: str, overrides: Sequence[str] = (), loaded: Sequence[Job] = ()
) -> Iterator[str]:
    """Lines of the files, with where they go. overrides: launcher.kubernetes.image=..., say. loaded: the jobs.

    Raises ConfigError, also for what a cluster's tick would write where it is lost.
    """
    if kind not in KINDS:
        raise ConfigError(Problem("KIND", kind, f"is one of {', '.join(KINDS)}", "systemd, say"))
    if kind in THERE:
        kept = {"--ledger": ledger}
        kept |= {f"{job.name}: publish.registry": job.config.publish.registry for job in loaded if job.config.enabled}
        yield from _cluster(kind, ("scripts/jobs.py", "--jobs", jobs, "--ledger", ledger, "tick"), overrides, kept)
        return
    if overrides:
        raise ConfigError(
            Problem("KIND", overrides[0], f"{kind} takes no overrides", f"leave it out, or {' or '.join(THERE)}")
        )
    here = Path.cwd()
    command = [sys.executable, "scripts/jobs.py", "--jobs", jobs, "--ledger", ledger, "tick"]
    if any("%" in part or "\n" in part for part in (*command, str(here))):
        raise ConfigError(
            Problem("KIND", kind, "paths without % and new lines", "move them; both mean something else there")
        )
    yield from (_crontab if kind == "crontab" else _systemd)(here, shlex.join(command))


def _cluster(kind: str, command: tuple[str, ...], overrides: Sequence[str], kept: Mapping[str, str]) -> Iterator[str]:
    """What launcher=kubernetes and launcher=batch render for a command on a schedule. kept: what has to outlive it."""
    from trainer.commands.jobs.compose import composed

    launcher = composed(["recipe=tiny", f"launcher={kind}", *overrides]).config.launcher
    request = Request(f"{NAME}-tick", command, Path("runs") / ".tick", processes=0)
    settings = launcher.kubernetes if kind == "kubernetes" else launcher.batch
    problems = launcher_of(launcher).problems(request, {})
    problems += [_lost(key, place, settings.volume_path) for key, place in kept.items() if not _stays(place, settings)]
    if problems:
        raise ConfigError(problems)
    if kind == "kubernetes":
        from trainer.launchers.kubernetes.cron import access, cronjob

        yield "# kubectl apply -f FILE"
        yield access(launcher).rstrip()
        yield "---"
        yield cronjob(request, launcher, EVERY_MINUTE, "UTC").rstrip()
        return
    from trainer.launchers.batch.schedule import schedule

    for name, text in schedule(request, launcher, EVERY_MINUTE, "UTC").items():
        yield f"# {name}"
        yield text.rstrip()


def _stays(place: str, settings: KubernetesConfig | BatchConfig) -> bool:
    """Whether a place is still there after a container has ended."""
    return place.startswith("s3://") or PurePosixPath(settings.directory, place).is_relative_to(settings.volume_path)


def _lost(key: str, place: str, volume: str) -> Problem:
    rule = f"lies below {volume}, where the volume is mounted, or in S3: a container's own files are lost with it"
    return Problem(key, place, rule, "runs/jobs and runs/registry, say: jobs.py --ledger runs/jobs timer ...")


def _crontab(here: Path, command: str) -> Iterator[str]:
    yield "# crontab -e; a tick that finds another at work does what that one does not, so they may overlap"
    yield "# cron's own PATH is short: PATH=... (sbatch, kubectl), and other variables, are lines above this one"
    yield f"* * * * * cd {shlex.quote(str(here))} && {command} >> {NAME}.log 2>&1"


def _systemd(here: Path, command: str) -> Iterator[str]:
    yield f"# ~/.config/systemd/user/{NAME}.service"
    yield "[Unit]"
    yield "Description=Scheduled training jobs: one tick"
    yield "[Service]"
    yield "Type=oneshot"
    yield f"WorkingDirectory={here}"
    yield f"ExecStart={command}"
    yield "KillMode=process"  # trainings on this machine outlive the tick that started them
    yield ""
    yield f"# ~/.config/systemd/user/{NAME}.timer; then: systemctl --user enable --now {NAME}.timer"
    yield "# and once: loginctl enable-linger, or it stops when you log out"
    yield "[Unit]"
    yield "Description=Scheduled training jobs, every minute"
    yield "[Timer]"
    yield "OnCalendar=minutely"
    yield "AccuracySec=1s"
    yield "Persistent=true"
    yield "[Install]"
    yield "WantedBy=timers.target"
