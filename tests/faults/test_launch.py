"""scripts/launch.py: the worker's exit code, signals that reach it, sensible restarts, and nobody left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import harness

pytestmark = pytest.mark.slow

FOREVER = [*harness.SMALL, "precision=fp32", "train.steps=1000000", "data.sources=[{paths: [corpus]}]"]


def start(cwd: Path, overrides: list[str], *arguments: str, mark: str = "") -> subprocess.Popen[str]:
    """launch.py with two workers; ``mark`` is in the environment of everything that it starts."""
    script = str(harness.ROOT / "scripts" / "train.py")
    launch = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [*launch, *arguments, script, *overrides],
        cwd=cwd,
        env={**harness.environment(), "TRAINER_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test that runs in a shell's background inherits an ignored SIGINT, which the launcher would respect.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def marked(mark: str) -> list[int]:
    """Live processes whose environment holds the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"TRAINER_TEST_MARK={mark}\0".encode() in (path / "environ").read_bytes():
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(path.name)] if state != "Z" else []
        except OSError:
            continue
    return found


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def wait_until_listening(launcher: subprocess.Popen[str]) -> None:
    """Until Python has come up and the launcher's first lines have run: before, no program could catch a signal."""
    status, deadline = Path(f"/proc/{launcher.pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & (1 << (signal.SIGTERM - 1)):
            return
        time.sleep(0.01)


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 90
    while harness.last_step(run / "metrics.jsonl") < step:
        assert time.monotonic() < deadline, "training does not begin"
        time.sleep(0.02)


def exit_record(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "exit.json").read_text())
    return record


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    harness.write_corpus(tmp_path / "corpus")
    return tmp_path


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.long),
        pytest.param(signal.SIGUSR2, marks=pytest.mark.long),
    ],
)
def test_a_signal_to_the_launcher_is_a_saved_run(corpus: Path, number: signal.Signals) -> None:
    run = corpus / "runs" / "tiny"
    launcher = start(corpus, FOREVER)
    wait_for_step(run, 5)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 10, output
    record = exit_record(run)
    assert (record["code"], record["name"], record["rank"]) == (10, "PREEMPTED", 0)
    assert record["newest_checkpoint_step"] == harness.last_step(run / "metrics.jsonl") >= 5
    assert "Traceback" not in output
    again = start(corpus, [*FOREVER, f"train.stop_after_steps={record['newest_checkpoint_step'] + 2}"])
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert f"resuming tiny from step {record['newest_checkpoint_step']}" in output
    assert exit_record(run)["code"] == 0


def test_codes_arrive(corpus: Path) -> None:
    """Configuration, data, non-finite, no checkpoint: in the shell and in exit.json, without torch's traceback."""
    few = [*FOREVER, "train.stop_after_steps=2"]
    cases = [
        ("config", ["optim.lrr=1"], 3),
        ("data", ["data.sources=[{paths: [nothing/*.txt]}]"], 4),
        ("nonfinite", ["optim.lr=1e38", "schedule.warmup_steps=0", "train.stop_after_steps=9"], 11),
        ("done", [], 0),
    ]
    for name, more, code in cases:
        (corpus / "runs" / name).mkdir(parents=True)  # what Hydra refuses is told in the directory of a run
        launcher = start(corpus, [*few, *more, f"run.name={name}"])
        output, _ = launcher.communicate(timeout=240)
        assert launcher.returncode == code, output
        assert exit_record(corpus / "runs" / name)["code"] == code
        assert "Traceback" not in output
        assert output.count("rule:") == (1 if code else 0), output
    for file in (corpus / "runs" / "done" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"x")
    launcher = start(corpus, [*few, "run.name=done"])
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 13, output
    assert exit_record(corpus / "runs" / "done")["name"] == "NO_CHECKPOINT"


@pytest.mark.long
def test_torchrun_leaves_the_code_in_exit_json(corpus: Path) -> None:
    for more, code in (["optim.lr=-1"], 3), (["data.sources=[{paths: [nothing/*.txt]}]"], 4), ([], 0):
        done = harness.train(corpus, [*FOREVER, "train.stop_after_steps=2", *more], processes=2)
        assert (done.code == 0) == (code == 0)
        assert exit_record(corpus / "runs" / "tiny")["code"] == code


@pytest.mark.long
def test_a_configuration_error_is_not_restarted_but_a_killed_worker_is(corpus: Path) -> None:
    launcher = start(corpus, [*FOREVER, "optim.lr=-1"], "--max-restarts", "3")
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 3
    assert output.count("the configuration cannot run: 1 problem") == 1

    run = corpus / "runs" / "again"
    overrides = [*FOREVER, "run.name=again", "checkpoint.every_steps=5", "train.stop_after_steps=400"]
    launcher = start(corpus, overrides, "--max-restarts", "1", mark="again")
    wait_for_step(run, 8)
    victim = max(harness.children(launcher.pid))
    os.kill(victim, signal.SIGKILL)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, output
    assert "resuming again from step" in output
    assert harness.last_step(run / "metrics.jsonl") == 400
    assert [step["step"] for step in harness.records(run)] == list(range(1, 401))
    assert not marked("again")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_worker_is_named_whichever_it_is(corpus: Path, rank: int) -> None:
    """It cannot write exit.json, and the other one writes what it has seen: gloo's "Connection reset by peer"."""
    run = corpus / "runs" / "tiny"
    launcher = start(corpus, [*FOREVER, "checkpoint.every_steps=3"])
    wait_for_step(run, 8)
    (victim,) = (pid for pid in harness.children(launcher.pid) if environment_of(pid)["RANK"] == str(rank))
    os.kill(victim, signal.SIGKILL)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 137, output
    said = f"rank {rank} was killed by SIGKILL (out of memory?)"
    assert output.splitlines()[-1] == f"launch: {said}; exit 137 (KILLED)"
    record = exit_record(run)
    assert (record["code"], record["name"], record["title"]) == (137, "KILLED", said)
    assert (record["rank"], record["host"]) == (rank, socket.gethostname())
    (consequence,) = record["consequences"]
    assert (consequence["rank"], consequence["host"]) == (1 - rank, socket.gethostname())
    assert consequence["code"] in (1, 12, -9)  # -9: by the launcher, where explaining took too long
    assert record["newest_checkpoint_step"] >= 6
    again = start(corpus, [*FOREVER, f"train.stop_after_steps={record['newest_checkpoint_step'] + 2}"])
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert exit_record(run)["code"] == 0


@pytest.mark.long
def test_nobody_is_left_behind_in_twenty_trials(corpus: Path) -> None:
    """Stopped at random moments, from the first import to training, by each signal and by kill -9; four at a time."""
    chance = random.Random(5)
    ways = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL]
    trials = [(trial, ways[trial % 4], chance.uniform(0.0, 10.0)) for trial in range(20)]

    def stop(trial: int, number: signal.Signals, seconds: float) -> None:
        mark = f"trial-{os.getpid()}-{trial}"
        launcher = start(corpus, [*FOREVER, f"run.name=trial-{trial}"], mark=mark)
        wait_until_listening(launcher)
        time.sleep(seconds)
        launcher.send_signal(number)
        output, _ = launcher.communicate(timeout=240)
        deadline = time.monotonic() + 60  # after kill -9, the workers save before they end
        while (left := marked(mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, (trial, number, output)
        if number != signal.SIGKILL:
            assert launcher.returncode == 10, (trial, number, output)
            assert "Traceback" not in output, (trial, number, output)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda trial: stop(*trial), trials))) == 20
