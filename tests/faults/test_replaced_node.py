"""Two launchers that meet over TCP, as on two nodes: one is lost with its worker, and started again or not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness
from tests.faults.test_launch import environment_of, exit_record, wait_for_step

pytestmark = pytest.mark.slow

LAUNCH, TRAIN = str(harness.ROOT / "scripts" / "launch.py"), str(harness.ROOT / "scripts" / "train.py")
STEPS = 150
RUN = [
    *harness.SMALL,
    "precision=fp32",
    f"train.steps={STEPS}",
    "checkpoint.every_steps=5",
    "data.sources=[{paths: [corpus]}]",
]


class Pair:
    """Two nodes of one launch on this machine; the first one hosts the rendezvous."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.cwd, self.arguments, self.port = cwd, arguments, harness.free_port()
        self.first = self.start()
        deadline = time.monotonic() + 90
        while not harness.listens(self.port):
            assert self.first.poll() is None, self.first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.second = self.start()

    def start(self) -> subprocess.Popen[str]:
        """The same command on either node."""
        meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{self.port}", "--rdzv_id", "pair"]
        return subprocess.Popen(
            [sys.executable, LAUNCH, "--nnodes", "2", "--nproc_per_node", "1", *meet, *self.arguments],
            cwd=self.cwd,
            env=harness.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip


def lose(launcher: subprocess.Popen[str]) -> None:
    """What the loss of a machine does to its processes."""
    workers = harness.children(launcher.pid)
    assert len(workers) == 1
    for pid in (launcher.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    launcher.wait()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    harness.write_corpus(tmp_path / "corpus")
    return tmp_path


@pytest.mark.long
def test_a_replaced_node_is_taken_in_and_the_curve_is_the_undisturbed_one(corpus: Path) -> None:
    straight, replaced = corpus / "runs" / "straight", corpus / "runs" / "replaced"
    done = harness.train(corpus, [*RUN, "run.name=straight"], processes=2)
    assert done.code == 0, done.output

    pair = Pair(corpus, "--max-restarts", "2", TRAIN, *RUN, "run.name=replaced")
    wait_for_step(replaced, 8)
    lose(pair.second)
    again = pair.start()
    output, _ = pair.first.communicate(timeout=240)
    assert pair.first.returncode == 0, output
    # Whichever comes first: the survivor's end, or the node that replaces the other.
    lost = "restart 1 of 2" in output and "went away" in output
    assert lost or "a node wants to join" in output
    output_again, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output_again
    assert "resuming replaced from step" in output + output_again

    expected, actual = harness.records(straight), harness.records(replaced)
    assert [record["step"] for record in actual] == list(range(1, STEPS + 1))
    for a, b in zip(expected, actual, strict=True):
        assert {key: a[key] for key in ("loss", "grad_norm")} == {key: b[key] for key in ("loss", "grad_norm")}, a[
            "step"
        ]
    assert exit_record(replaced)["code"] == 0


def test_without_its_rendezvous_host_a_launch_ends_and_says_so(corpus: Path) -> None:
    """The first node cannot be replaced: the others meet at a store that its launcher hosts."""
    run = corpus / "runs" / "hosted"
    pair = Pair(corpus, "--max-restarts", "2", TRAIN, *RUN, "run.name=hosted")
    wait_for_step(run, 8)
    lose(pair.first)
    output, _ = pair.second.communicate(timeout=90)
    assert pair.second.returncode == 12, output
    assert f"the node that hosts the rendezvous, 127.0.0.1:{pair.port}, went away: start all nodes again" in output
    assert "restart 1 of 2" not in output
    record = exit_record(run)
    assert (record["code"], record["name"]) == (12, "HANG")
    assert "went away" in record["title"]
    assert "Traceback" not in output.partition("launch: ")[2]


@pytest.mark.long
def test_a_worker_killed_on_one_node_is_named_on_both(corpus: Path) -> None:
    run = corpus / "runs" / "tiny"
    pair = Pair(corpus, TRAIN, *RUN)
    wait_for_step(run, 8)
    (victim,) = harness.children(pair.second.pid)
    rank = int(environment_of(victim)["RANK"])
    os.kill(victim, signal.SIGKILL)
    for launcher in (pair.first, pair.second):
        output, _ = launcher.communicate(timeout=90)
        assert launcher.returncode == 137, output
        assert f"launch: rank {rank} on {socket.gethostname()} was killed by SIGKILL (out of memory?)" in output
    record = exit_record(run)
    assert (record["code"], record["name"], record["rank"]) == (137, "KILLED", rank)
    assert [other["rank"] for other in record["consequences"]] == [1 - rank]


@pytest.mark.long
@pytest.mark.parametrize("killed", ["first", "second"])
def test_kill_9_of_one_launcher_saves_the_run_on_all_nodes(corpus: Path, killed: str) -> None:
    """The first one hosts the rendezvous; the other must not end its workers, which are about to save."""
    run = corpus / "runs" / "tiny"
    pair = Pair(corpus, TRAIN, *RUN, "train.steps=100000", "checkpoint.every_steps=0")
    wait_for_step(run, 8)
    gone, left = (pair.first, pair.second) if killed == "first" else (pair.second, pair.first)
    gone.kill()
    output, _ = left.communicate(timeout=90)
    assert left.returncode == 10, output
    gone.communicate(timeout=90)  # until its worker, which has inherited its output, has ended
    record = exit_record(run)
    assert record["code"] == 10
    assert record["newest_checkpoint_step"] == harness.last_step(run / "metrics.jsonl")


def test_a_node_that_does_not_come_is_code_12(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").touch()
    port = harness.free_port()
    meet = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "alone"]
    launch = [sys.executable, LAUNCH, *meet, "--rdzv_conf", "join_timeout=3"]
    done = subprocess.run(
        [*launch, "nothing.py"], cwd=tmp_path, env=harness.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 12, done.stderr
    assert "the other nodes did not come in time" in done.stderr
    assert "Traceback" not in done.stderr
