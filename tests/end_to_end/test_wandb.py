"""W&B's offline records: what real runs leave, read back from the files that `wandb sync` would send."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import harness

pytestmark = pytest.mark.slow

COMMON = [*harness.SMALL, "precision=fp32", "model.layers=1", "data.sources=[{paths: [corpus]}]"]
OFFLINE = ["logging=wandb", "logging.wandb.mode=offline"]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    harness.write_corpus(tmp_path / "corpus")
    return tmp_path


def payloads(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB; crc, length, type) after 7 bytes."""
    data, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def records(file: Path) -> Iterator[Any]:
    """The records of one launch's offline file, in order."""
    from wandb.proto import wandb_internal_pb2

    for payload in payloads(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        yield record


def offline(run: Path) -> list[Path]:
    """A run's offline files, oldest first."""
    return sorted((run / "wandb").rglob("*.wandb"))


def history(file: Path) -> list[dict[str, Any]]:
    """The rows that one launch logged, with W&B's own _step."""
    rows = [record.history.item for record in records(file) if record.WhichOneof("record_type") == "history"]
    read = [{(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in row} for row in rows]
    return [{key: value for key, value in row.items() if key == "_step" or key[0] != "_"} for row in read]


def ended(file: Path) -> tuple[str, int]:
    """The id of a launch's W&B run, and the exit code that it was finished with."""
    found = list(records(file))
    (identity,) = {record.run.run_id for record in found if record.WhichOneof("record_type") == "run"}
    (code,) = [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"]
    return identity, code


def test_the_parts_of_a_resumed_run_join_into_one_series(cwd: Path) -> None:
    """Both parts number their rows by the training step: no step is missing, and none comes twice."""
    run = cwd / "runs" / "tiny"
    for stop in (8, 20):
        more = [f"train.stop_after_steps={stop}", "evaluation.every_steps=10"]
        done = harness.train(cwd, [*COMMON, *OFFLINE, *more])
        assert done.code == 0, done.output
        assert "W&B is left out" not in done.output
    parts = [history(file) for file in offline(run)]
    assert [[row["_step"] for row in part] for part in parts] == [[*range(1, 9)], [*range(9, 21)]]
    rows = [row for part in parts for row in part]
    assert all(row["step"] == row["_step"] for row in rows)
    assert [row["loss"] for row in rows] == [step["loss"] for step in harness.records(run)]
    scored = {row["step"]: row["evaluation/heldout_loss"] for row in rows if "evaluation/heldout_loss" in row}
    assert scored == {step["step"]: step["heldout_loss"] for step in harness.records(run, "evaluation")}
    assert list(scored) == [10, 20]
    first, second = (ended(file) for file in offline(run))
    assert first == second == (json.loads((run / "wandb.json").read_text())["id"], 0)


@pytest.mark.long
def test_a_kill_loses_nothing_of_what_is_trained_again(cwd: Path) -> None:
    """A resume from a step before the last one that was logged logs the steps between again, under their numbers."""
    run, saved = cwd / "runs/run", ["checkpoint.every_steps=4", "checkpoint.mode=sync"]  # step 4 is committed before 5
    common = [*COMMON, *OFFLINE, "run.name=run", *saved, "train.steps=1000"]
    reached = harness.train_and_kill(cwd, common, 1, run / "metrics.jsonl", at_step=6)
    done = harness.train(cwd, [*common, f"train.stop_after_steps={reached + 6}"])
    resumed = 1 + int(done.output.split("resuming run from step ")[1].split()[0])
    steps = [row["_step"] for row in history(offline(run)[-1])]
    assert done.code == 0, done.output
    assert resumed % 4 == 1
    assert steps == list(range(resumed, steps[-1] + 1))
    assert steps[-1] == harness.last_step(run / "metrics.jsonl")


@pytest.mark.long
def test_a_run_that_begins_anew_is_another_one_to_wandb(cwd: Path) -> None:
    """Without a checkpoint any setting may differ: rows of the first try are not the second's."""
    run = cwd / "runs" / "tiny"
    failed = harness.train(cwd, [*COMMON, *OFFLINE, "optim.lr=1e30", "reliability.nonfinite=stop"])
    assert failed.code == 11, failed.output
    done = harness.train(cwd, [*COMMON, *OFFLINE, "train.stop_after_steps=2"])
    assert done.code == 0, done.output
    (first, lost), (second, kept) = (ended(file) for file in offline(run))
    assert (lost, kept) == (1, 0)
    assert first != second


@pytest.mark.long
def test_each_job_of_a_sweep_is_a_run_of_its_own(cwd: Path) -> None:
    """Also after a job that ended by an exception."""
    swept = [o for o in COMMON if not o.startswith("optim.lr")]
    swept += ["run.name=s", "train.stop_after_steps=4", "reliability.nonfinite=stop", "-m", "optim.lr=1e30,1e-3,2e-3"]
    done = harness.train(cwd, [*swept, *OFFLINE])
    assert done.code == 11, done.output
    assert "W&B is left out" not in done.output
    runs = [cwd / "runs" / f"s-optim.lr={lr}" for lr in ("1e+30", "0.001", "0.002")]
    files = [file for run in runs for file in offline(run)]
    assert len(files) == 3
    assert [ended(file)[1] for file in files] == [1, 0, 0]
    assert len({ended(file)[0] for file in files}) == 3
    for run, file in zip(runs, files, strict=True):
        assert [row["loss"] for row in history(file)] == [step["loss"] for step in harness.records(run)]


def test_no_secret_reaches_the_offline_files(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"WANDB_API_KEY": "wk" * 20, "HF_TOKEN": "hf_secretsecret", "AWS_SECRET_ACCESS_KEY": "awssecretkey123"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert harness.train(cwd, [*COMMON, *OFFLINE, "train.stop_after_steps=2"]).code == 0
    files = [path for path in (cwd / "runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not any(value.encode() in content for value in secrets.values()), path


def test_without_wandb_training_is_the_same(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B that cannot be imported costs one line."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")]))
    (cwd / "wandb.py").write_text("raise RuntimeError('no network, no nothing')\n")
    done = harness.train(cwd, [*COMMON, *OFFLINE])
    assert done.code == 0, done.output
    assert done.output.count("W&B is left out") == 1
    assert "is complete" in done.output
