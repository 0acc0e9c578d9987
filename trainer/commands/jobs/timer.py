"""Files that let a machine call tick every minute: for systemd, for crontab, for Kubernetes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import ConfigError, Problem

KINDS = ("systemd", "crontab")
NAME = "trainer-jobs"


def timers(kind: str, jobs: str, ledger: str) -> Iterator[str]:
    """Lines of the file, or of both files, with where they go."""
    if kind not in KINDS:
        raise ConfigError(Problem("KIND", kind, f"is one of {', '.join(KINDS)}", "systemd, say"))
    here = Path.cwd()
    command = [sys.executable, "scripts/jobs.py", "--jobs", jobs, "--ledger", ledger, "tick"]
    if any("%" in part or "\n" in part for part in (*command, str(here))):
        raise ConfigError(
            Problem("KIND", kind, "paths without % and new lines", "move them; both mean something else there")
        )
    yield from (_crontab if kind == "crontab" else _systemd)(here, shlex.join(command))


def _crontab(here: Path, command: str) -> Iterator[str]:
    yield "# crontab -e; a tick that finds another at work does what that one does not, so they may overlap"
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
    yield "[Unit]"
    yield "Description=Scheduled training jobs, every minute"
    yield "[Timer]"
    yield "OnCalendar=minutely"
    yield "AccuracySec=1s"
    yield "Persistent=true"
    yield "[Install]"
    yield "WantedBy=timers.target"
