"""The one way in which tests run code of their own in other processes: functions, called in ranks.

One process imports what the ranks need, which takes seconds, and never computes; for each task it forks the ranks.
torch, torch_xla and NxD keep state in module globals and never reset it: every task starts from fresh imports that
way, and what it patches ends with it. (A run of the trainer's own commands is tests/harness.py's; a program that a test
sends signals to, tests/programs.py's.)

    found = run(Task("tests.some.worker:check", 4, {"tp": 2}), tmp_path)
    found[rank]        # what check(tp=2) returned on a rank, by way of JSON
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests import harness


class RanksFailed(AssertionError):
    """A rank raised, died or hung; the message is its log."""


@dataclass(frozen=True)
class Task:
    """A function, ``package.module:name``, to call in each of some ranks with keyword arguments that are JSON.

    seconds: after which ranks are ended. silent: that a rank prints anything, a warning too, is a failure.
    """

    work: str
    processes: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 120
    silent: bool = False


@dataclass(frozen=True)
class Setting:
    """What ranks find: variables, directories on Python's path; and a function that is called once, before any fork."""

    environment: Mapping[str, str] = field(default_factory=dict)
    path: tuple[Path, ...] = ()
    prepare: str = ""


PLAIN = Setting()
STARTER = os.getppid()


@dataclass
class Outcomes:
    """What tasks found, by key."""

    found: dict[Any, list[Any] | RanksFailed]

    def __getitem__(self, key: Any) -> list[Any]:
        """Every rank's finding. Raises RanksFailed with the log of the rank that failed first."""
        outcome = self.found[key]
        if isinstance(outcome, RanksFailed):
            raise outcome
        return outcome


def run(task: Task, directory: Path, setting: Setting = PLAIN) -> list[Any]:
    """What each rank of one task found. Raises RanksFailed."""
    return attempt({"": task}, directory, setting)[""]


def attempt(tasks: Mapping[Any, Task], directory: Path, setting: Setting = PLAIN) -> Outcomes:
    """Do tasks one after the other, those after a failure too. Ranks start in ``directory``; logs stay below it."""
    logs = Path(tempfile.mkdtemp(prefix="ranks-", dir=directory))
    (logs / "plan.json").write_text(json.dumps([setting.prepare, *map(asdict, tasks.values())]))
    output, code = _in_a_session(
        [sys.executable, "-m", "tests.ranks", str(logs)],
        directory,
        {
            **harness.environment(),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(map(str, (harness.ROOT, *setting.path))),
            **setting.environment,
        },
        seconds=120 + sum(task.seconds + 10 for task in tasks.values()),
    )
    print(output)
    if code:
        raise RanksFailed(output)  # before any task: an import
    return Outcomes({key: _found(logs / str(index), task) for index, (key, task) in enumerate(tasks.items())})


def _in_a_session(command: list[str], cwd: Path, environment: dict[str, str], seconds: float) -> tuple[str, int]:
    """Output and exit code. Whatever happens here, an interrupt included, no rank outlives it."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=seconds)[0], process.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _found(logs: Path, task: Task) -> list[Any] | RanksFailed:
    failure = (logs / "failure.txt").read_text()
    if failure:
        return RanksFailed(f"{task.work} {task.arguments}: {failure}")
    return [json.loads((logs / f"rank-{rank}.json").read_text()) for rank in range(task.processes)]


def main(directory: Path) -> int:
    """Do the planned tasks one after the other; the exit code."""
    prepare, *tasks = json.loads((directory / "plan.json").read_text())
    if prepare:
        _function(prepare)()
    for index, task in enumerate(Task(**task) for task in tasks):
        _function(task.work)  # imported once, rather than in every rank
        logs, start = directory / str(index), time.monotonic()
        (logs / "failure.txt").write_text(_launch(task, logs) or _noise(task, logs))
        print(f"{time.monotonic() - start:6.1f} s  {task.work} {task.arguments}")
    return 0


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _launch(task: Task, logs: Path) -> str:
    """Fork the ranks of a task and wait; what went wrong, or nothing."""
    logs.mkdir()
    port = harness.free_port()
    deadline = time.monotonic() + task.seconds
    alive: dict[int, int] = {}
    for rank in range(task.processes):
        pid = os.fork()
        if pid == 0:
            os._exit(_live(task, rank, port, logs))
        alive[pid] = rank
    while alive and time.monotonic() < deadline:
        if os.getppid() != STARTER:
            _end(alive)
            sys.exit("the test that started this has ended")
        pid, status = os.waitpid(-1, os.WNOHANG)
        rank = alive.pop(pid, -1)
        if pid and status:  # the others may wait for it for ever
            _end(alive)
            return f"rank {rank} ended with {_reason(status)}\n{_tail(logs, rank)}"
        time.sleep(0 if pid else 0.01)
    if alive:
        hung = sorted(alive.values())
        _end(alive)
        return f"ranks {hung} hung for {task.seconds} s\n" + "\n".join(_tail(logs, rank) for rank in hung[:2])
    return ""


def _end(alive: dict[int, int]) -> None:
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    for pid in alive:
        os.waitpid(pid, 0)


def _reason(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"


def _noise(task: Task, logs: Path) -> str:
    """What ranks have printed that should have been silent."""
    ranks = range(task.processes) if task.silent else ()
    told = [_tail(logs, rank) for rank in ranks if (logs / f"rank-{rank}.log").stat().st_size]
    return "\n".join(["not silent:" * bool(told), *told[:2]]).strip()


def _tail(logs: Path, rank: int, lines: int = 60) -> str:
    log = logs / f"rank-{rank}.log"
    if not log.exists():
        return f"--- rank {rank} had not begun"
    text = log.read_text(errors="replace").splitlines()
    told = [line for line in text if not line.startswith("[Gloo] Rank")]
    return "\n".join([f"--- rank {rank}", *told[-lines:]])


def _live(task: Task, rank: int, port: int, logs: Path) -> int:
    """A rank's whole life, with torchrun's variables; its exit code."""
    with (logs / f"rank-{rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    size = str(task.processes)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # A rank that hangs says where, before it is ended.
    faulthandler.dump_traceback_later(max(task.seconds - 2, 1), file=sys.__stderr__)
    try:
        found = _function(task.work)(**task.arguments)
        (logs / f"rank-{rank}.json").write_text(json.dumps(found))
        _wait_for_all(logs, task.processes)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _wait_for_all(logs: Path, processes: int) -> None:
    """Rank 0 serves the store that others may still be connecting through: nobody leaves before all are done."""
    while not all((logs / f"rank-{rank}.json").exists() for rank in range(processes)):
        time.sleep(0.01)


if __name__ == "__main__":
    # As the module that tasks may import too, so that there is one set of classes.
    sys.exit(importlib.import_module("tests.ranks").main(Path(sys.argv[1])))
