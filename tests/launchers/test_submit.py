"""scripts/submit.py: what it refuses, what it keeps with the run, and jobs of this machine from start to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests import harness
from tests.launchers.jobs import wait_for
from tests.programs import started

SUBMIT = harness.ROOT / "scripts" / "submit.py"
SMALL = [*harness.SMALL, "data.sources=[{paths: [corpus]}]", "precision=fp32", "checkpoint.every_steps=40"]


def submit(cwd: Path, *words: str, python: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """The exit code, standard output, standard error."""
    environment = {**harness.environment(), "PYTHONPATH": str(harness.ROOT)}
    command = [sys.executable, *python, str(SUBMIT), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, done.stdout, done.stderr


def workers(cwd: Path) -> list[int]:
    """Stops the processes that train there; their ids."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            launches, trains = (
                any(word.endswith(name) for word in words) for name in (b"launch.py", b"scripts/train.py")
            )
            if trains and not launches and (process / "cwd").readlink() == cwd:
                os.kill(int(process.name), signal.SIGSTOP)
                found.append(int(process.name))
    assert len(found) == 2
    return found


def test_a_dry_run_renders_and_starts_nothing(tmp_path: Path) -> None:
    words = ["recipe=tiny", "run.name=Dry run", "launcher.processes=2", "launcher.environment={HELLO: HI}"]
    code, out, err = submit(tmp_path, *words, "launcher.python=python3", "--dry-run", python=("-X", "importtime"))
    assert code == 0, err
    imported = {line.split("|")[-1].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    assert not {"torch", "numpy", "datasets", "transformers", "boto3"} & imported
    directory = tmp_path / "runs" / "Dry run" / "launch" / "dry-run"
    assert [Path(line) for line in out.splitlines()] == [directory / "job.sh", directory / "environment.json"]
    job = (directory / "job.sh").read_text()
    assert "# yours: launcher.environment\nexport HELLO=HI\n" in job
    last = job.splitlines()[-1].replace(f"{harness.ROOT}/", "")
    assert last == (
        "exec python3 scripts/launch.py --standalone --nproc_per_node 2 scripts/train.py recipe=tiny"
        " 'run.name=Dry run' launcher.processes=2 'launcher.environment={HELLO: HI}' launcher.python=python3"
    )
    kept = json.loads((directory / "environment.json").read_text())
    exported = re.findall(r"^export (\w+)=", job, re.MULTILINE)
    assert exported == ["PYTHONPATH", *(variable["name"] for variable in kept["variables"])]
    assert all(variable["reason"] and variable["source"] for variable in kept["variables"])
    assert not (tmp_path / "runs" / ".launches").exists()


def test_flags_are_told_to_who_asks_for_help_alone(tmp_path: Path) -> None:
    assert "--dry-run" in submit(tmp_path, "--help")[2]
    code, _, err = submit(tmp_path, "recipe=smollm2_lora", "--dry-run")
    assert (code, "model.init_from" in err, "further flags" in err) == (3, True, False)


def test_every_mistake_is_said_before_anything_is_submitted(tmp_path: Path) -> None:
    code, out, err = submit(tmp_path, "recipe=tiny", "optim.lr=-1", "nodes=2", "launcher.setup=[if true]")
    assert (code, out) == (3, "")
    assert "3 problems (exit 3)" in err
    for key in ("optim.lr = -1", "launcher.nodes = 2", "launcher.setup = "):
        assert key in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_the_batch_is_checked_against_the_jobs_processes(tmp_path: Path) -> None:
    """On a laptop, for a cluster of trn1: the rules see its cores."""
    elsewhere = "launcher.name=trainer.launchers.local:LocalLauncher"
    code, _, err = submit(tmp_path, "recipe=llama3_8b", "backend.name=neuron", elsewhere, "nodes=3")
    assert code == 3
    assert "data-parallel size" in err or "number of processes (96)" in err
    assert "no Neuron device" not in err


def test_two_things_at_once_are_refused(tmp_path: Path) -> None:
    code, _, err = submit(tmp_path, "recipe=tiny", "--dry-run", "--follow")
    assert code == 3
    assert "--dry-run and --follow are two things" in err


def test_nothing_to_ask_after(tmp_path: Path) -> None:
    code, _, err = submit(tmp_path, "recipe=tiny", "--status")
    assert code == 3
    assert "has a submission to ask after" in err


@pytest.mark.slow
def test_a_job_is_followed_stopped_and_submitted_again(tmp_path: Path) -> None:
    """It ends with the curve of a run that nobody stopped, to the last bit."""
    harness.write_corpus(tmp_path / "corpus")
    words = [*SMALL, "launcher.processes=2", "train.steps=120"]
    code, whole, err = submit(tmp_path, *words, "run.name=whole", "--follow")
    assert code == 0, whole + err
    assert "run whole is complete" in whole
    run = tmp_path / "runs" / "parts"
    words += ["run.name=parts"]
    with started([sys.executable, str(SUBMIT), *words, "--follow"], tmp_path) as process:
        wait_for(lambda: harness.last_step(run / "metrics.jsonl") >= 3, 120)
        frozen = workers(tmp_path)  # until it is cancelled: a slow machine takes longer for that than it has steps
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 130
    assert "no longer following" in output
    assert "--cancel" in output
    code, status, _ = submit(tmp_path, *words, "--cancel")
    assert (code, status.startswith("parts-0001-")) == (0, True)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    assert submit(tmp_path, *words, "--attach")[0] == 10
    assert json.loads((run / "exit.json").read_text())["name"] == "PREEMPTED"
    assert harness.last_step(run / "metrics.jsonl") < 120
    assert submit(tmp_path, *words, "--follow")[0] == 0
    assert sorted(path.name for path in (run / "launch").glob("0*")) == ["0001", "0002"]
    keys = ("step", "loss", "grad_norm")
    first, second = (
        [[record[key] for key in keys] for record in harness.records(tmp_path / "runs" / name)]
        for name in ("whole", "parts")
    )
    assert first == second


@pytest.mark.slow
def test_a_sweep_is_one_job_here(tmp_path: Path) -> None:
    harness.write_corpus(tmp_path / "corpus")
    words = [*SMALL, "run.name=sweep", "train.steps=2", "schedule.warmup_steps=1", "--multirun", "seed=1,2"]
    code, out, err = submit(tmp_path, *words, "--follow")
    assert code == 0, out + err
    assert "2 runs" in err
    for seed in (1, 2):
        run = tmp_path / "runs" / f"sweep-seed={seed}"
        assert f"seed={seed}" in json.loads((run / "overrides.json").read_text())
        assert (run / "result.json").is_file()
    assert (tmp_path / "runs" / ".sweeps" / "sweep" / "launch" / "0001" / "submission.json").is_file()


@pytest.mark.slow
def test_what_submitting_costs(tmp_path: Path) -> None:
    """Seconds of the processor, which other tests beside this one do not lengthen much."""
    before = os.times()
    assert submit(tmp_path, "recipe=tiny", "--dry-run")[0] == 0
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2.0
