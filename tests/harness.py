"""Runs the real entry point in real processes, and reads what it left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

ROOT = Path(__file__).parents[1]

SMALL = [
    "recipe=tiny",
    "model.hidden=64",
    "model.layers=2",
    "model.mlp=96",
    "model.vocab=512",
    "data.tokenizer.vocab=512",
    "data.seq_len=64",
    "train.tokens=null",
    "train.steps=20",
    "train.tokens_per_step=512",
    "train.microbatch=1",
    "schedule=constant",
    "schedule.warmup_steps=5",
    "optim.lr=1e-3",
    "optim.clip_norm=1.0",
    "checkpoint.every_steps=0",
    "evaluation.every_steps=0",
    "data.heldout_fraction=0.1",
    "logging.every_steps=1",
]
"""A model that trains in seconds, at the settings of the layout contract (docs/numerics.md)."""

NOT_INHERITED = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("HOST_WORLD_SIZE", "NXD_CPU_MODE"),
)


@dataclass
class Finished:
    """A process that ended."""

    code: int
    output: str


TRAIN = ROOT / "scripts" / "train.py"


def command(overrides: list[str], processes: int, program: Path = TRAIN) -> list[str]:
    """Plain python for one process, torchrun for more."""
    script = str(program)
    if processes == 1:
        return [sys.executable, script, *overrides]
    # --standalone picks a free port, so that tests may run side by side.
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), script,
        *overrides,
    ]  # fmt: skip


def environment(threads: int = 1) -> dict[str, str]:
    """The environment of a run: few threads, no inherited variables of torchrun or neuronx-distributed."""
    kept = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    return {**kept, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def train(
    cwd: Path,
    overrides: list[str],
    processes: int = 1,
    timeout: float = 240,
    more: Mapping[str, str] | None = None,
    program: Path = TRAIN,
) -> Finished:
    """Run to the end. more: variables of the environment. program: what is run."""
    done = subprocess.run(
        command(overrides, processes, program),
        cwd=cwd,
        env=environment() | dict(more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def train_and_kill(cwd: Path, overrides: list[str], processes: int, metrics: Path, at_step: int) -> int:
    """Start a run, kill -9 every rank as soon as ``at_step`` is in its metrics; return the step it had reached."""
    train_and_kill_when(cwd, overrides, processes, lambda: last_step(metrics) >= at_step)
    return last_step(metrics)


def train_and_kill_when(cwd: Path, overrides: list[str], processes: int, condition: Callable[[], bool]) -> None:
    """Start a run and kill -9 every rank as soon as the condition holds."""
    launcher = subprocess.Popen(
        command(overrides, processes),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not condition():
        assert launcher.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.001)
    ranks = [launcher.pid] if processes == 1 else children(launcher.pid)
    assert len(ranks) == processes
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    assert launcher.wait(timeout=90) != 0


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def children(pid: int) -> list[int]:
    """Process ids whose parent is ``pid``."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def last_step(metrics: Path) -> int:
    """The last step whose line is complete."""
    if not metrics.exists():
        return 0
    lines = metrics.read_text().split("\n")[:-1]
    return max((json.loads(line)["step"] for line in lines if line), default=0)


def records(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    """Records of metrics.jsonl of one kind."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def worst_difference(a: list[dict[str, Any]], b: list[dict[str, Any]], key: str) -> float:
    """Largest relative difference between two curves, step by step."""
    assert [x["step"] for x in a] == [y["step"] for y in b]
    return max(abs(x[key] - y[key]) / abs(x[key]) for x, y in zip(a, b, strict=True))


def assert_same_curve(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    """The layout contract in FP32 (docs/numerics.md): loss to 1e-5, gradient norm to 1e-4."""
    assert worst_difference(a, b, "loss") <= 1e-5
    assert worst_difference(a, b, "grad_norm") <= 1e-4


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """Weights, moments, state and data cursor, byte for byte."""
    files = sorted(path.relative_to(a) for path in a.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(b) for path in b.rglob("*.safetensors"))
    assert len(files) >= 2
    for file in files:
        assert (a / file).read_bytes() == (b / file).read_bytes(), file
        with safe_open(a / file, framework="pt") as reader:
            assert list(reader.keys())
    for name in ("state.json", "data.json"):
        assert (a / name).read_text() == (b / name).read_text()


def write_corpus(directory: Path, documents: int = 60) -> Path:
    """Real text in files of uneven length: Python's reference topics, one a file, some a line long."""
    from pydoc_data.topics import topics

    directory.mkdir(parents=True, exist_ok=True)
    for index, (name, text) in enumerate(sorted(topics.items())[:documents]):
        short = text[: 40 + 17 * (index % 23)]
        (directory / f"{index:03d}-{name.replace('/', '_')}.txt").write_text(short, encoding="utf-8")
    return directory
