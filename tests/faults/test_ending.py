"""Signals, plug-ins and readers of the output do what they like: the exit code and exit.json stand."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.programs import read_until, rest, started
from tests.selection import long

FEW = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]"]

PLUGIN = """
import sys, time

def quits(*arguments, **options):
    sys.exit("no licence")

def waits(*arguments, **options):
    print("waiting", flush=True)
    time.sleep(30)
"""

STOPPED_LATE = """
import os, signal, sys
import hydra
from trainer.commands import entry
from trainer.run.signals import StopRequest

def recipe(config, derived, world, overrides):
    print("job", flush=True)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)  # in the last step: the run is done all the same
    return 0

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="train")
def main(composed):
    entry.run(composed, lambda task: recipe)

sys.exit(entry.enter(main))
"""


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    harness.write_corpus(tmp_path / "corpus")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return tmp_path


def exit_record(cwd: Path, name: str = "tiny") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((cwd / "runs" / name / "exit.json").read_text())
    return record


@pytest.mark.slow
def test_a_plugin_that_calls_exit_is_no_finished_run(cwd: Path) -> None:
    with started(harness.command([*FEW, "optim.name=plugin:quits"], 1), cwd) as process:
        assert "sys.exit('no licence')" in rest(process, 1)
    assert exit_record(cwd)["name"] == "CRASH"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, *long(0.01, 0.1, 0.4)])
def test_a_second_signal_does_not_kill_a_process_that_leaves(cwd: Path, seconds: float) -> None:
    """Python takes half a second to leave, with torch loaded, and forgets its handlers at the start of it."""
    with started(harness.command([*FEW, "optim.name=plugin:waits"], 1), cwd) as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGINT)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        rest(process, 10)
    assert exit_record(cwd)["code"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.7, *long(0.3, 1.1)])
def test_a_person_in_a_hurry_gets_the_code_of_a_saved_run(cwd: Path, seconds: float) -> None:
    launch = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), "--standalone", "--nproc_per_node", "2"]
    overrides = [*FEW, "train.steps=100000"]
    with started([*launch, str(harness.ROOT / "scripts" / "train.py"), *overrides], cwd) as process:
        while harness.last_step(cwd / "runs" / "tiny" / "metrics.jsonl") < 3:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        rest(process, 10)
    assert exit_record(cwd)["name"] == "PREEMPTED"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, *long(0.0, 0.4)])
def test_a_signal_after_the_end_changes_nothing(cwd: Path, seconds: float) -> None:
    with started(harness.command([*FEW], 1), cwd) as process:
        assert process.stdout is not None
        assert any("is complete" in line for line in process.stdout)
        while not (cwd / "runs" / "tiny" / "exit.json").exists():
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        rest(process, 0)
    assert exit_record(cwd)["name"] == "DONE"


@pytest.mark.slow
@pytest.mark.parametrize("progress", ["bar", *long("lines")])
def test_a_terminal_that_is_closed_is_a_stop_like_any(cwd: Path, progress: str) -> None:
    terminal, end = pty.openpty()
    overrides = [*FEW, "train.steps=100000", f"logging.progress={progress}"]
    with subprocess.Popen(
        harness.command(overrides, 1),
        cwd=cwd,
        env=harness.environment(),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    ) as process:
        os.close(end)
        os.set_blocking(terminal, False)
        while harness.last_step(cwd / "runs" / "tiny" / "metrics.jsonl") < 3:
            assert process.poll() is None
            _drain(terminal)
            time.sleep(0.01)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        try:
            assert process.wait(30) == 10
        finally:
            process.kill()
    record = exit_record(cwd)
    assert record["name"] == "PREEMPTED"
    assert record["newest_checkpoint_step"] >= 3


def _drain(terminal: int) -> None:
    try:
        os.read(terminal, 1 << 16)
    except BlockingIOError:
        return


@pytest.mark.parametrize(("override", "code"), [("optim.lr=-1", 3), ("optim.lrr=1", 3)], ids=["a value", "no such key"])
def test_a_report_that_nobody_reads_has_its_code_and_exit_json(cwd: Path, override: str, code: int) -> None:
    (cwd / "runs" / "tiny").mkdir(parents=True)  # what Hydra refuses is told in the directory of a run that is there
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        harness.command([*FEW, override], 1), cwd=cwd, env=harness.environment(), stdout=writer, stderr=writer
    ) as process:
        os.close(writer)
        assert process.wait(30) == code
    assert exit_record(cwd)["code"] == code


@pytest.mark.slow
def test_a_run_whose_reader_leaves_goes_on_to_its_end(cwd: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        harness.command([*FEW], 1), cwd=cwd, env=harness.environment(), stdout=writer, stderr=writer
    ) as process:
        os.close(writer)
        assert process.wait(60) == 0
    assert exit_record(cwd)["code"] == 0


def test_a_sweep_that_is_asked_to_stop_in_a_last_step_begins_no_other_job(cwd: Path) -> None:
    (cwd / "late.py").write_text(STOPPED_LATE.format(conf=str(harness.ROOT / "conf")))
    command = [sys.executable, "late.py", *FEW, "run.name=late", "--multirun", "optim.lr=1e-3,2e-3"]
    with started(command, cwd) as process:
        output = rest(process, 10)
    assert output.count("job\n") == 1
    assert exit_record(cwd, "late-optim.lr=0.001")["name"] == "DONE"


@pytest.mark.slow
@pytest.mark.long
def test_a_launcher_that_waits_for_a_lost_node_ends_when_asked(cwd: Path) -> None:
    """Two nodes of one worker; kill -9 takes one of them, and the other waits for it to come back."""
    script = str(harness.ROOT / "scripts" / "train.py")
    port = str(harness.free_port())
    nodes = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{port}", "--rdzv_id", port]
    launch = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), *nodes, "--max-restarts", "3"]
    command = [*launch, "--nproc_per_node", "1", script, *FEW, "train.steps=100000"]
    with started(command, cwd) as stays:
        while not harness.listens(int(port)):  # the first to come keeps the store that both meet at
            assert stays.poll() is None
            time.sleep(0.05)
        _lose_a_node(command, cwd, stays)
        assert stays.stdout is not None
        assert any("restart 1 of 3" in line for line in stays.stdout)
        time.sleep(1)
        assert not harness.children(stays.pid)
        stays.send_signal(signal.SIGTERM)
        rest(stays, 10)


def _lose_a_node(command: list[str], cwd: Path, stays: subprocess.Popen[str]) -> None:
    with started(command, cwd) as lost:
        while harness.last_step(cwd / "runs" / "tiny" / "metrics.jsonl") < 3:
            assert stays.poll() is None
            time.sleep(0.05)
        for pid in (lost.pid, *harness.children(lost.pid)):
            os.kill(pid, signal.SIGKILL)
