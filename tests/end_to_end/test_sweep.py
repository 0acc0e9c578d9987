"""Hydra's sweeps: a run for each job, and what a signal does to those that have not begun."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests import harness
from tests.programs import rest, started

pytestmark = pytest.mark.slow

SWEPT = [o for o in harness.SMALL if not o.startswith("optim.lr")]
SWEPT += ["precision=fp32", "data.sources=[{paths: [corpus]}]", "evaluation.every_steps=10", "checkpoint.every_steps=8"]


def test_a_sweep_is_a_run_each(tmp_path: Path) -> None:
    harness.write_corpus(tmp_path / "corpus")
    overrides = [*SWEPT, "run.name=sweep"]
    done = harness.train(tmp_path, [*overrides, "train.stop_after_steps=3", "--multirun", "optim.lr=1e-3,2e-3"])
    assert done.code == 0, done.output
    made = sorted(path.name for path in (tmp_path / "runs").glob("sweep-*"))
    assert len(made) == 2
    assert made[0].endswith("optim.lr=0.001")
    assert made[1].endswith("optim.lr=0.002")


@pytest.mark.long
def test_one_element_of_a_list_is_swept(tmp_path: Path) -> None:
    harness.write_corpus(tmp_path / "corpus")
    more = ["run.name=mix", "train.stop_after_steps=1", "--multirun", "data.sources.0.weight=1,2"]
    done = harness.train(tmp_path, [*SWEPT, *more])
    assert done.code == 0, done.output
    for weight in (1, 2):
        run = tmp_path / "runs" / f"mix-data.sources.0.weight={weight}"
        assert f"data.sources.0.weight={weight}" in json.loads((run / "overrides.json").read_text())
        (source,) = yaml.safe_load((run / "config.yaml").read_text())["data"]["sources"]
        assert (source["weight"], source["paths"]) == (weight, ["corpus"])


def test_a_stopped_sweep_begins_no_other_run(tmp_path: Path) -> None:
    harness.write_corpus(tmp_path / "corpus")
    overrides = [*SWEPT, "run.name=halted", "train.steps=3000"]
    first = tmp_path / "runs" / "halted-optim.lr=0.001"
    command = harness.command([*overrides, "--multirun", "optim.lr=1e-3,2e-3"], 1)
    with started(command, tmp_path) as process:
        while harness.last_step(first / "metrics.jsonl") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output = rest(process, 10)
    assert "Traceback" not in output
    assert json.loads((first / "exit.json").read_text())["name"] == "PREEMPTED"
    assert [path.name for path in (tmp_path / "runs").glob("halted*")] == [first.name]
