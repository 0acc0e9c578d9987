"""kill -9 on every rank, and the same command again: bitwise the run that nobody killed."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from tests import harness
from tests.ranks import Task
from tests.ranks import run as in_ranks
from tests.selection import long
from trainer.checkpoint.directory import checkpoints, fault

pytestmark = pytest.mark.slow

LONG = ["train.steps=45", "train.tokens_per_step=2048", "checkpoint.every_steps=7", "checkpoint.keep=0"]


@pytest.mark.parametrize(
    ("processes", "precision"),
    [(2, "fp32"), *long((1, "fp32"), (1, "bf16_mixed"), (2, "bf16_mixed"))],
)
def test_killed_three_times_equals_never_killed(tmp_path: Path, processes: int, precision: str) -> None:
    harness.write_corpus(tmp_path / "corpus")
    common = [
        *harness.SMALL,
        *LONG,
        f"precision={precision}",
        "precision.cpu_fallback=null",
        "data.sources=[{paths: [corpus]}]",
        "evaluation.every_steps=15",
        "model.dropout=0.1",
        "model.frozen=[model.layers.0.mlp.*]",
    ]
    if precision != "fp32":  # minutes where a CPU has no BF16
        common.append("train.tokens_per_step=512")
    straight, killed = tmp_path / "runs" / "straight", tmp_path / "runs" / "killed"
    done = harness.train(tmp_path, [*common, "run.name=straight"], processes)
    assert done.code == 0, done.output
    overrides = [*common, "run.name=killed"]
    # Just after a save, in the middle, and between a save and an evaluation.
    reached = [
        harness.train_and_kill(tmp_path, overrides, processes, killed / "metrics.jsonl", step) for step in (8, 20, 33)
    ]
    assert reached[0] < reached[1] < reached[2] < 45
    done = harness.train(tmp_path, overrides, processes)
    assert done.code == 0, done.output
    assert "resuming killed from step" in done.output

    for kind in ("step", "evaluation"):
        expected, actual = harness.records(straight, kind), harness.records(killed, kind)
        assert len(expected) == (45 if kind == "step" else 3)
        compared = ("step", "loss", "grad_norm", "lr", "target_tokens", "heldout_loss", "bits_per_byte", "sample")
        for a, b in zip(expected, actual, strict=True):
            assert {k: a.get(k) for k in compared} == {k: b.get(k) for k in compared}
    results = [json.loads((run / "result.json").read_text()) for run in (straight, killed)]
    assert results[0] == results[1]
    harness.assert_same_checkpoint(straight / "checkpoints" / "step-00000045", killed / "checkpoints" / "step-00000045")


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_while_saving_goes_on_from_the_save_before(tmp_path: Path, processes: int) -> None:
    """A save is caught half-written, three times; what has a checkpoint's name always verifies."""
    harness.write_corpus(tmp_path / "corpus")
    overrides = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=run"]
    overrides += ["train.steps=60", "checkpoint.every_steps=1", "checkpoint.keep=3"]
    run = tmp_path / "runs" / "run"
    for _ in range(3):
        left = {path.stat().st_ino for path in (run / "checkpoints").glob(".saving-*/optimizer/*")}
        harness.train_and_kill_when(tmp_path, overrides, processes, partial(half_written, run, left))
        assert list((run / "checkpoints").glob(".saving-*")), "caught in the middle"
        for checkpoint in checkpoints(run / "checkpoints"):
            assert fault(checkpoint) is None
    done = harness.train(tmp_path, overrides, processes)
    assert done.code == 0, done.output
    assert "passed over" not in done.output
    assert [s["step"] for s in harness.records(run)] == list(range(1, 61))
    assert not list((run / "checkpoints").glob(".saving-*"))


def half_written(run: Path, left: set[int]) -> bool:
    """Whether a save is under way that has begun with the optimizer, other than what earlier kills left."""
    try:
        return any(p.stat().st_ino not in left for p in (run / "checkpoints").glob(".saving-*/optimizer/*"))
    except FileNotFoundError:  # committed between listing and looking
        return False


@pytest.mark.long
def test_a_disk_that_fails_on_rank_zero_stops_every_rank_at_once(tmp_path: Path) -> None:
    """Nobody waits in a collective for the rank that gave up."""
    harness.write_corpus(tmp_path / "corpus")
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "checkpoints").write_text("a file where a directory has to be")
    start = time.monotonic()
    overrides = ["precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=run", "train.stop_after_steps=2"]
    done = harness.train(tmp_path, [*harness.SMALL, *overrides], processes=2)
    assert time.monotonic() - start < 200, "long before a collective's timeout of 600 s"
    assert "takes a checkpoint (" in done.output
    assert done.output.count("exitcode  : 3") + done.output.count("exitcode: 3") >= 1, done.output
    assert "the configuration cannot run (exit 3): run.root; see rank 0" in done.output
    assert "recipes/pretrain.py" not in done.output, "no traceback of ours"


def test_records_that_rank_zero_cannot_write_stop_every_rank_saved(tmp_path: Path) -> None:
    """The step is saved first; then all ranks end together, under one code."""
    harness.write_corpus(tmp_path / "corpus")
    run = tmp_path / "runs" / "run"
    overrides = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=run"]
    arguments = {"kind": "no room for records", "overrides": overrides, "seconds": 100, "rank": 0}
    ranks = in_ranks(Task("tests.faults.injected:launch", 2, arguments, seconds=120), tmp_path)
    assert [rank["code"] for rank in ranks] == [3, 3]
    told = ranks[0]["output"] + ranks[1]["output"]
    assert "takes the run's records (No space left on device)" in told
    assert "stopping with rank 0 (exit 3)" in told
    assert [fault(path) for path in checkpoints(run / "checkpoints")] == [None]
    record = json.loads((run / "exit.json").read_text())
    assert (record["code"], record["newest_checkpoint_step"]) == (3, 3)


@pytest.mark.long
def test_a_result_that_rank_zero_cannot_write_ends_every_rank(tmp_path: Path) -> None:
    """What was trained is saved; with room again, the same command evaluates once more and ends as it would have."""
    harness.write_corpus(tmp_path / "corpus")
    overrides = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=run"]
    overrides += ["train.steps=4", "schedule.warmup_steps=2", "evaluation.every_steps=2"]
    for kind, code in (("no room for the result", 3), ("none", 0)):
        arguments = {"kind": kind, "overrides": overrides, "seconds": 100, "rank": 0}
        ranks = in_ranks(Task("tests.faults.injected:launch", 2, arguments, seconds=120), tmp_path)
        output = ranks[0]["output"] + ranks[1]["output"]
        assert [rank["code"] for rank in ranks] == [code] * 2, output
        assert "Traceback" not in output
        assert ("takes the run's records (No space left on device" in output) == bool(code)
        assert [path.name for path in (tmp_path / "runs/run/checkpoints").glob("step-*")] == ["step-00000004"]
        assert [line["step"] for line in harness.records(tmp_path / "runs/run", "evaluation")] == [2, 4]
