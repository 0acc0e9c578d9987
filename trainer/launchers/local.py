"""launcher=local: a job is a process of this machine in a session of its own, which outlives who submitted it.

REGISTER/NAME.json   which processes it is, and its directory; written by the job's own watching process
REGISTER/NAME.lock   held from before that process exists until it has written: who crashes between starting a job
                     and recording it leaves one that is found, or none
DIRECTORY/job.sh     what runs
DIRECTORY/output.log
DIRECTORY/end.json   its exit code
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.files import read_json
from trainer.launchers import environment, script
from trainer.launchers.base import LaunchError, State, Status
from trainer.launchers.ends import ended
from trainer.launchers.pids import ProcessId
from trainer.launchers.process import END, Asked
from trainer.launchers.request import Request

SCRIPT, OUTPUT = "job.sh", "output.log"
ONE_BY_ONE = """\
# One run after the other. A signal ends bash's wait and not the run, which saves; no other begins then.
worst=0 asked=
trap 'asked=yes; kill -TERM "$child" 2>/dev/null' TERM INT HUP USR1 USR2
one() {
  [[ -z $asked ]] || exit 10
  "$@" & child=$!
  wait "$child"; code=$?
  while ((code > 128)) && kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  if ((code > 128)) && [[ -n $asked ]]; then  # it ended just when the signal came
    wait "$child"; last=$?
    ((last == 127)) || code=$last
  fi
  ((code > worst)) && worst=$code
  [[ -z $asked ]] || exit "$code"
}
""".splitlines()


class LocalLauncher:
    """The runs of a sweep follow each other: one machine has the cores for one."""

    takes_tasks = True

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config
        self._register = Path(config.local.register).absolute()

    def render(self, request: Request) -> dict[str, str]:
        """The job's script and its environment."""
        run = script.command(request, self._config, script.ALONE)
        lines = ["#!/bin/bash", f"# {request.name}", *script.prologue(request, self._config), ""]
        if request.tasks:
            lines += [*ONE_BY_ONE, *(f"one {run} {script.words(task.arguments)}" for task in request.tasks)]
            lines += ["exit $worst"]
        else:
            lines += [f"exec {run}"]
        return {SCRIPT: "\n".join(lines) + "\n", environment.FILE: environment.recorded(request.environment)}

    def problems(self, request: Request, files: Mapping[str, str]) -> list[Problem]:
        """One node; and bash reads the script."""
        found = []
        if request.nodes != 1:
            remedy = "launcher.nodes=1, or launcher=slurm, kubernetes or batch"
            found.append(Problem("launcher.nodes", request.nodes, "1: launcher=local knows this machine only", remedy))
        return [*found, *script.unreadable(files[SCRIPT])]

    def submit(self, request: Request) -> str:
        """Start it. Raises LaunchError where there is a job of this name, or the directories cannot be written."""
        with self._locked(request.name, fcntl.LOCK_EX) as lock:
            if self._record(request.name) is not None:
                rule = "the name of one job only; there is one"
                raise LaunchError(Problem("name", request.name, rule, "find it by this name, or take another"))
            directory = request.directory.absolute()
            script.keep(directory, self.render(request))
            limit = None if request.limit_minutes is None else request.limit_minutes * 60
            asked = Asked(
                record=str(self._register / f"{request.name}.json"),
                directory=str(directory),
                script=str(directory / SCRIPT),
                grace_seconds=request.grace_seconds,
                limit_seconds=limit,
                lock=lock,
            )
            self._start(asked, directory / OUTPUT)
        return request.name

    def _start(self, asked: Asked, output: Path) -> None:
        """Returns when the job is recorded."""
        path = os.pathsep.join(filter(None, [str(script.ROOT), os.environ.get("PYTHONPATH")]))
        with open(output, "ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "trainer.launchers.process", json.dumps(asdict(asked))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=[asked.lock],
                check=False,
            )
        if done.returncode:
            rule = f"can be started here; {output} says why it cannot"
            raise LaunchError(Problem("launcher.name", "local", rule, "mend that, and submit again"))

    def find(self, name: str) -> str | None:
        """The name itself is the id."""
        with self._locked(name, fcntl.LOCK_SH):
            return name if self._record(name) is not None else None

    def status(self, id: str, request: Request) -> Status:
        """By end.json; without it, by whether its processes live."""
        record = self._record(id)
        if record is None:
            return Status(State.UNKNOWN, None, f"no job of this name in {self._register}")
        watch, job = (ProcessId(**record[key]) if record[key] else None for key in ("watch", "job"))
        living = any(process is not None and process.lives for process in (watch, job))
        end = self._end(record)  # after the look at the processes: it may have ended meanwhile
        if end is not None:
            how = f"stopped by {', '.join(end['stopped_by'])}" if end["stopped_by"] else "ended by itself"
            return ended(request, record["time"], int(end["code"]), how)
        if watch is not None and not watch.is_here:
            return Status(State.UNKNOWN, None, f"runs on {watch.host}, where alone it can be asked after")
        if living:
            return Status(State.RUNNING, None, f"process {watch.pid if watch is not None else '?'}")
        return ended(request, record["time"], None, "its processes are gone without a word: kill -9, or a reboot")

    def cancel(self, id: str) -> None:
        """SIGTERM; after the grace what is left is killed."""
        record = self._record(id)
        if record is not None and record["watch"]:
            ProcessId(**record["watch"]).send(signal.SIGTERM)

    def logs(self, id: str, request: Request) -> Iterator[str]:
        """What it has printed."""
        over = self.status(id, request).state is State.ENDED
        return script.printed(request.directory / OUTPUT, whole=over)

    def _record(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = read_json(self._register / f"{name}.json")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            rule = f"can be read ({error})"
            raise LaunchError(Problem("launcher.local.register", str(self._register), rule, "restore it")) from None
        return record

    def _end(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            end: dict[str, Any] = read_json(Path(record["directory"], END))
            return end
        return None

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[int]:
        """The lock of a name: its file descriptor. Raises LaunchError where there can be none."""
        try:
            self._register.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._register / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            rule = f"can be written ({error.strerror})"
            remedy = "launcher.local.register=<another directory>"
            raise LaunchError(Problem("launcher.local.register", str(self._register), rule, remedy)) from None
        try:
            fcntl.flock(descriptor, how)
            yield descriptor
        finally:
            os.close(descriptor)
