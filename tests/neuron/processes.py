"""Runs functions in ranks that share a gloo world, on NxD's real source or on the double.

One process imports torch, torch_xla and NxD, which takes seconds, and never computes; for each task it forks the ranks.
NxD keeps its state in module globals and never resets it: every task starts from fresh imports that way.

    [found] = run([Task("tests.neuron.some_worker:check", 4, {"tp": 2})], nxd_source, tmp_path)
    found[rank]        # what check(tp=2) returned on a rank, by way of JSON
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INHERITED = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "HOST_WORLD_SIZE",
    "NXD_CPU_MODE",
)


class RanksFailed(AssertionError):
    """A rank raised, died or hung; the message is its log."""


@dataclass(frozen=True)
class Task:
    """A function, ``package.module:name``, to call in each of some ranks with keyword arguments that are JSON.

    seconds: after which ranks are ended. environment: of the ranks only; what imports read has to go to run().
    """

    work: str
    processes: int
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 120


def run(tasks: Sequence[Task], source: Path, directory: Path, **options: Any) -> list[list[Any]]:
    """attempt(), raising the RanksFailed of the first task that failed."""
    return [found_or_raise(outcome) for outcome in attempt(tasks, source, directory, **options)]


def found_or_raise(outcome: list[Any] | RanksFailed) -> list[Any]:
    """What ranks found, unless they failed."""
    if isinstance(outcome, RanksFailed):
        raise outcome
    return outcome


def attempt(
    tasks: Sequence[Task], source: Path, directory: Path, gloo: bool = True, environment: dict[str, str] | None = None
) -> list[list[Any] | RanksFailed]:
    """Do every task; what its ranks returned, or the failure with the log of the rank that failed first.

    Ranks start in ``directory``, which keeps their logs. source: the directory that holds the package
    neuronx_distributed. gloo: redirect torch_xla (tests/neuron/gloo_xla.py), else ranks meet its real lazy tensors.
    """
    plan = directory / "tasks.json"
    plan.write_text(json.dumps({"gloo": gloo, "tasks": [asdict(task) for task in tasks]}))
    output, code = _in_a_session(
        [sys.executable, "-m", "tests.neuron.processes", str(plan)],
        directory,
        _environment(source, gloo) | (environment or {}),
        seconds=120 + sum(task.seconds + 10 for task in tasks),
    )
    if code:
        raise RanksFailed(output)  # before any task: an import
    return [_found(directory / str(index), task) for index, task in enumerate(tasks)]


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


def _environment(source: Path, gloo: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in INHERITED}
    return {
        **kept,
        **({"NXD_CPU_MODE": "1"} if gloo else {}),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{source}",
        "PJRT_DEVICE": "CPU",
        "OMP_NUM_THREADS": "1",
        "NXD_LOG_LEVEL": "error",
        "PYTHONWARNINGS": "ignore",
    }


def _found(logs: Path, task: Task) -> list[Any] | RanksFailed:
    failure = (logs / "failure.txt").read_text()
    if failure:
        return RanksFailed(f"{task.work} {task.arguments}: {failure}")
    return [json.loads((logs / f"rank-{rank}.json").read_text()) for rank in range(task.processes)]


def main(plan: Path) -> int:
    """Do the planned tasks one after the other; the exit code."""
    wanted = json.loads(plan.read_text())
    _import_library(wanted["gloo"])
    for index, task in enumerate(Task(**task) for task in wanted["tasks"]):
        importlib.import_module(task.work.partition(":")[0])  # once, rather than in every rank
        logs = plan.parent / str(index)
        (logs / "failure.txt").write_text(launch(task, logs))
    return 0


def _import_library(gloo: bool) -> None:
    from tests.neuron import gloo_xla, stand_ins

    if gloo:
        gloo_xla.install()
        return
    stand_ins.install()
    gloo_xla.provide_host_count()
    importlib.import_module("neuronx_distributed")


def launch(task: Task, logs: Path) -> str:
    """Fork the ranks of a task and wait; what went wrong, or nothing."""
    logs.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    deadline = time.monotonic() + task.seconds
    alive: dict[int, int] = {}
    for rank in range(task.processes):
        pid = os.fork()
        if pid == 0:
            os._exit(_live(task, rank, port, logs))
        alive[pid] = rank
    while alive and time.monotonic() < deadline:
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


def _tail(logs: Path, rank: int, lines: int = 60) -> str:
    log = logs / f"rank-{rank}.log"
    if not log.exists():
        return f"--- rank {rank} had not begun"
    text = log.read_text(errors="replace").splitlines()
    told = [line for line in text if not line.startswith("[Gloo] Rank")]
    return "\n".join([f"--- rank {rank}", *told[-lines:]])


def _live(task: Task, rank: int, port: int, logs: Path) -> int:
    """A rank's whole life; its exit code."""
    with (logs / f"rank-{rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    size = str(task.processes)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **task.environment}
    # A rank that hangs says where, before it is ended.
    faulthandler.dump_traceback_later(max(task.seconds - 2, 1), file=sys.__stderr__)
    try:
        module, _, name = task.work.partition(":")
        found = getattr(importlib.import_module(module), name)(**task.arguments)
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
    sys.exit(importlib.import_module("tests.neuron.processes").main(Path(sys.argv[1])))
