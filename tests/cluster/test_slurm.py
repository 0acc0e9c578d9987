"""A real Slurm: two nodes of two processes through scripts/submit.py, stopped, moved and swept (make test-slurm)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import harness
from tests.cluster.slurm import Slurm, missing
from tests.launchers.jobs import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

SUBMIT = harness.ROOT / "scripts" / "submit.py"
SMALL = [
    *(word for word in harness.SMALL if not word.startswith("train.steps")),
    "data.sources=[{paths: [corpus]}]",
    "launcher=slurm",
    f"launcher.python={sys.executable}",
    "reliability.grace_seconds=30",
    "checkpoint.every_steps=10",
]
TWO_BY_TWO = [*SMALL, "nodes=2", "launcher.processes=2", "train.steps=40"]


@dataclass
class Bench:
    """A directory that all nodes share, and the Slurm under it."""

    slurm: Slurm
    cwd: Path

    def submit(self, *words: str, code: int = 0) -> str:
        """What scripts/submit.py prints."""
        environment = {**harness.environment(), **self.slurm.environment, "PYTHONPATH": str(harness.ROOT)}
        command = [sys.executable, str(SUBMIT), *words]
        done = subprocess.run(
            command, cwd=self.cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}\n{self.log()}"
        return done.stdout

    def log(self) -> str:
        """The controller's log, for a test that fails."""
        return (self.slurm.root / "slurmctld.log").read_text()[-4000:]

    def run(self, name: str) -> Path:
        return self.cwd / "runs" / name

    def wait_for_step(self, name: str, step: int) -> None:
        """Until a run has come so far."""
        wait_for(lambda: harness.last_step(self.run(name) / "metrics.jsonl") >= step, 600)

    def curve(self, name: str) -> list[list[float]]:
        keys = ("step", "loss", "grad_norm")
        return [[record[key] for key in keys] for record in harness.records(self.run(name))]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("slurm")
    harness.write_corpus(root / "corpus")
    slurm = Slurm(root, nodes=3)
    try:
        yield Bench(slurm, root)
    finally:
        slurm.close()


@pytest.fixture(scope="module")
def whole(bench: Bench) -> list[list[float]]:
    """The curve of a run that nobody disturbs."""
    printed = bench.submit(*TWO_BY_TWO, "run.name=whole", "--follow")
    assert "on 4 process(es)" in printed
    assert "run whole is complete" in printed
    curve = bench.curve("whole")
    assert len(curve) == 40
    return curve


def test_preempted_by_signal_it_goes_on_by_itself(bench: Bench, whole: list[list[float]]) -> None:
    words = [*TWO_BY_TWO, "run.name=preempted"]
    id = bench.submit(*words).strip()
    bench.wait_for_step("preempted", 1)
    bench.slurm.run("scancel", "--signal=USR1", id)
    printed = bench.submit(*words, "--attach")
    assert "slurm: code 10: back into the queue" in printed
    directory = bench.run("preempted") / "launch" / "0001"
    starts = [json.loads(line) for line in (directory / "starts.jsonl").read_text().splitlines()]
    assert [(start["restart"], start["code"]) for start in starts] == [(0, 10), (1, 0)]
    assert 1 <= starts[0]["step"] < 40
    assert bench.curve("preempted") == whole
    assert "ended with code 0" in bench.submit(*words, "--status")


def test_a_cancelled_job_saves_and_stays_away(bench: Bench) -> None:
    words = [*TWO_BY_TWO, "run.name=cancelled", "train.steps=3000"]
    bench.submit(*words)
    bench.wait_for_step("cancelled", 2)
    bench.submit(*words, "--cancel")
    printed = bench.submit(*words, "--attach", code=10)
    assert "slurm: code 10: it was cancelled" in printed
    assert json.loads((bench.run("cancelled") / "exit.json").read_text())["newest_checkpoint_step"] >= 2


def test_the_time_limit_is_not_the_end(bench: Bench) -> None:
    """Slurm's own --requeue does nothing there: it would be TIMEOUT, with 0 restarts."""
    words = [*SMALL, "run.name=limited", "train.steps=100000", "launcher.limit_minutes=2"]
    words += ["reliability.grace_seconds=5"]
    id = bench.submit(*words).strip()
    starts = bench.run("limited") / "launch" / "0001" / "starts.jsonl"
    wait_for(starts.exists, 300)
    assert json.loads(starts.read_text())["code"] == 10
    wait_for(lambda: " Restarts=1 " in bench.slurm.run("scontrol", "show", "job", "--oneliner", id), 60)
    bench.submit(*words, "--cancel")
    wait_for(lambda: " ended" in bench.submit(*words, "--status"), 120)


def test_a_sweep_of_four_is_one_array(bench: Bench) -> None:
    words = [
        *SMALL,
        "train.steps=5",
        "schedule.warmup_steps=1",
        "run.name=sweep",
        "--multirun",
        "optim.lr=1e-3,2e-3",
        "seed=1,2",
    ]
    printed = bench.submit(*words, "--follow")
    runs = sorted(path.name for path in (bench.cwd / "runs").glob("sweep-*"))
    assert len(runs) == 4
    for number in range(4):
        assert f"[{number}] run sweep-" in printed
    curves = {tuple(map(tuple, bench.curve(name))) for name in runs}
    assert len(curves) == 4
    assert all(json.loads((bench.run(name) / "exit.json").read_text())["code"] == 0 for name in runs)


def test_what_slurm_refuses_is_said_before_it_is_submitted(bench: Bench) -> None:
    for wrong in ("nodes=4", "launcher.slurm.partition=other", "launcher.slurm.options=[--nonsense=1]"):
        bench.submit(*SMALL, "train.steps=5", "run.name=refused", wrong, code=3)
    assert not bench.run("refused").exists()


def test_a_lost_node_is_replaced(bench: Bench, whole: list[list[float]]) -> None:
    """The last test: the node does not come back."""
    words = [*TWO_BY_TWO, "run.name=moved", "backend.timeout_seconds=20"]
    id = bench.submit(*words).strip()
    bench.wait_for_step("moved", 11)
    before = bench.slurm.run("squeue", "--noheader", f"--jobs={id}", "--format=%N").strip()
    lost = bench.slurm.run("scontrol", "show", "hostnames", before).split()[-1]
    bench.slurm.lose(lost)
    bench.submit(*words, "--attach")
    assert bench.curve("moved") == whole
    job = bench.slurm.run("scontrol", "show", "job", "--oneliner", id)
    after = next(word.partition("=")[2] for word in job.split() if word.startswith("NodeList="))
    assert lost not in bench.slurm.run("scontrol", "show", "hostnames", after).split()
