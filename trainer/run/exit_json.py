"""runs/NAME/exit.json: how the last launch of a run ended, for schedulers. A launch that was killed leaves none."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from trainer.config.groups.run import RunConfig
from trainer.config.homes import expanded
from trainer.errors import ExitCode, RunError
from trainer.files import is_directory_name, write_json
from trainer.redact import redact

EXIT, REFUSED = "exit.json", "exit.refused.json"
LOCK = ".lock"
CRASH = 1
"""Exit code of a Python process that ends in an exception of ours: a traceback, and no remedy."""


def named_directory(overrides: Sequence[str]) -> Path | None:
    """The run's directory as far as the command line tells, whether it is there or not.

    None for a rehearsal (backend=fake): it is no launch of the run.
    """
    if {"backend=fake", "backend.name=fake"} & set(overrides):
        return None
    given = dict(re.findall(r"^\+{0,2}(run\.root|run\.name|recipe)=(.*)$", "\n".join(overrides), re.MULTILINE))
    given = {key: value.strip("'\"") for key, value in given.items()}
    name = given.get("run.name") or given.get("recipe") or ""
    return Path(expanded(given.get("run.root") or RunConfig.root), name) if is_directory_name(name) else None


def guess_directory(overrides: Sequence[str]) -> Path | None:
    """The directory of an existing run, where the configuration does not compose: what was refused makes none."""
    directory = named_directory(overrides)
    return directory if directory is not None and directory.is_dir() else None


def write_exit(
    directory: Path | None,
    code: int,
    rank: int,
    title: str,
    error: RunError | None = None,
    launcher: Mapping[str, Any] | None = None,
) -> None:
    """Write how this launch ended. Not being able to is no second error: the exit code says it all the same.

    Where another live launch holds the run, exit.json is that one's, and this one writes exit.refused.json.
    launcher: what scripts/launch.py adds, when its workers have ended without the one that was the cause saying why.
    """
    if directory is None:
        return
    with suppress(OSError):
        saved = [int(path.name[5:]) for path in directory.glob("checkpoints/step-*") if path.name[5:].isdigit()]
        names = {int(known): known.name for known in ExitCode} | {CRASH: "CRASH"}
        record: dict[str, Any] = {
            "code": code,
            "name": names.get(code, "KILLED" if code > 128 else "UNKNOWN"),
            "title": title,
            "problems": [
                {"key": p.key, "value": _plain(p.value), "rule": p.rule, "remedy": p.remedy}
                for p in (error.problems if error else ())
            ],
            "rank": rank,
            "newest_checkpoint_step": max(saved, default=None),
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        directory.mkdir(parents=True, exist_ok=True)
        record |= launcher or {}
        # A rank other than 0 is in the middle of a launch that holds the lock. The launcher's ranks have ended.
        target = REFUSED if (rank == 0 or launcher is not None) and _held(directory) else EXIT
        write_json(directory / target, redact(record))


def write_crash(directory: Path | None, rank: int, error: BaseException) -> None:
    """Write an exception of ours, unless a rank before this one has written why: the others' crashes follow from it."""
    if directory is not None and not (directory / EXIT).exists():
        write_exit(directory, CRASH, rank, f"{type(error).__name__}: {error}")


def read_exit(directory: Path, since: float) -> dict[str, Any]:
    """What a worker has left of a launch that began at ``since`` (seconds since 1970); empty if nothing."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record: dict[str, Any] = json.loads((directory / EXIT).read_text())
        if datetime.fromisoformat(record["time"]).timestamp() >= int(since):
            return record
    return {}


def forget_exit(directory: Path) -> None:
    """Remove what the launch before this one wrote."""
    for name in (EXIT, REFUSED):
        (directory / name).unlink(missing_ok=True)


def _plain(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def this_process() -> str:
    """What the holder of a run's lock writes into it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _held(directory: Path) -> bool:
    """Whether another live process holds the run's lock. This one still does where it leaves without tidying up."""
    try:
        with open(directory / LOCK, encoding="utf-8", errors="replace") as lock:
            holder = lock.read()
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder != this_process()
    except OSError:
        return False
    return False
