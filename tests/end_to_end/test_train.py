"""Whole runs through scripts/train.py: what they leave behind, how they end, how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import harness
from tests.selection import long

pytestmark = pytest.mark.slow

CORPUS = "data.sources=[{paths: [corpus]}]"
FP32 = "precision=fp32"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("runs")
    harness.write_corpus(cwd / "corpus")
    return cwd


@pytest.fixture(scope="module")
def straight(workspace: Path) -> Path:
    """An uninterrupted run with evaluation and saves."""
    done = harness.train(workspace, arguments("straight"))
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert "Warning" not in done.output
    return workspace / "runs" / "straight"


def arguments(name: str, *more: str) -> list[str]:
    watching = ["evaluation.every_steps=10", "checkpoint.every_steps=8", "checkpoint.keep=0"]
    return [*harness.SMALL, FP32, CORPUS, *watching, f"run.name={name}", *more]


def test_every_step_is_recorded_and_adds_up(straight: Path) -> None:
    steps = harness.records(straight)
    assert [s["step"] for s in steps] == list(range(1, 21))
    for s in steps:
        assert s["tokens"] == 512 * s["step"]
        assert s["step_seconds"] == pytest.approx(s["data_seconds"] + s["compute_seconds"] + s["other_seconds"])
        assert s["tokens_per_second"] == pytest.approx(512 / s["step_seconds"])
        assert 0 < s["mfu"] < 1
        assert s["finite"]
    assert [s["lr"] for s in steps[:6]] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])
    assert [e["step"] for e in harness.records(straight, "evaluation")] == [10, 20]
    assert [s["step"] for s in harness.records(straight, "save")] == [8, 16, 20]


def test_bits_per_byte_follow_from_the_loss(straight: Path) -> None:
    """Loss and bits per byte are one figure: nats per target over bytes per target, the same at each evaluation."""
    first, last = harness.records(straight, "evaluation")
    assert last["heldout_loss"] < first["heldout_loss"]
    assert first["bits_per_byte"] / first["heldout_loss"] == pytest.approx(last["bits_per_byte"] / last["heldout_loss"])
    result = json.loads((straight / "result.json").read_text())
    assert result["bits_per_byte"] == last["bits_per_byte"]


def test_a_finished_run_prints_its_result_and_changes_nothing(workspace: Path, straight: Path) -> None:
    def files() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in straight.rglob("*") if p.is_file() and p.name != "exit.json"}

    before = files()
    done = harness.train(workspace, arguments("straight"))
    assert done.code == 0
    assert "is complete" in done.output
    assert "bits_per_byte" in done.output
    assert before == files()


def test_a_changed_trajectory_is_refused(workspace: Path, straight: Path) -> None:
    done = harness.train(workspace, arguments("straight", "optim.lr=5e-4"))
    assert done.code == 3
    assert "optim.lr = 0.0005" in done.output
    assert "resume.allow=[optim.lr]" in done.output


def test_the_saved_configuration_runs_again_as_it_is(workspace: Path, straight: Path) -> None:
    done = harness.train(workspace, ["--config-path", str(straight), "--config-name", "config", "run.name=again"])
    assert done.code == 0, done.output
    again = workspace / "runs" / "again"
    assert [s["loss"] for s in harness.records(again)] == [s["loss"] for s in harness.records(straight)]
    assert not list(workspace.glob("outputs")), "Hydra makes no directory of its own"
    assert not list(workspace.rglob(".hydra"))


def test_stopping_early_and_going_on_is_the_straight_run(workspace: Path, straight: Path) -> None:
    done = harness.train(workspace, arguments("parts", "train.stop_after_steps=5"))
    assert done.code == 0, done.output
    parts = workspace / "runs" / "parts"
    assert harness.last_step(parts / "metrics.jsonl") == 5
    done = harness.train(workspace, arguments("parts"))
    assert done.code == 0, done.output
    assert "on other terms" not in done.output
    harness.assert_same_checkpoint(straight / "checkpoints" / "step-00000020", parts / "checkpoints" / "step-00000020")


@pytest.mark.long
def test_another_number_of_processes_takes_over(workspace: Path, straight: Path) -> None:
    """One process saves, two go on: the curve of the single process, within the layout contract."""
    done = harness.train(workspace, arguments("grown", "train.stop_after_steps=8"))
    assert done.code == 0, done.output
    done = harness.train(workspace, arguments("grown"), processes=2)
    assert done.code == 0, done.output
    assert "on other terms (dp 2, was 1; world 2, was 1)" in done.output
    for a, b in zip(harness.records(straight), harness.records(workspace / "runs" / "grown"), strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * a["loss"]
        assert abs(a["grad_norm"] - b["grad_norm"]) <= 1e-4 * a["grad_norm"]


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *long(signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)],
)
def test_a_stopping_signal_saves_and_exits_10(workspace: Path, number: signal.Signals) -> None:
    name = f"signal-{number.name}"
    overrides = arguments(name, "train.steps=3000", "checkpoint.every_steps=0", "evaluation.every_steps=0")
    metrics = workspace / "runs" / name / "metrics.jsonl"
    process = subprocess.Popen(
        harness.command(overrides, 1),
        cwd=workspace,
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while harness.last_step(metrics) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 10, output
    saved = harness.records(workspace / "runs" / name, "save")
    assert [s["step"] for s in saved] == [harness.last_step(metrics)]


def test_a_signal_to_one_rank_of_two_stops_both(workspace: Path) -> None:
    """Rank 1 alone is asked; both agree at the step boundary, save and leave with 10."""
    overrides = arguments("one-rank", "train.steps=3000", "checkpoint.every_steps=0", "evaluation.every_steps=0")
    run = workspace / "runs" / "one-rank"
    launcher = subprocess.Popen(
        harness.command(overrides, 2),
        cwd=workspace,
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while harness.last_step(run / "metrics.jsonl") < 3:
        assert launcher.poll() is None
        time.sleep(0.01)
    os.kill(max(harness.children(launcher.pid)), signal.SIGTERM)
    output, _ = launcher.communicate(timeout=90)
    assert "exitcode  : 10" in output, output
    assert [s["step"] for s in harness.records(run, "save")] == [harness.last_step(run / "metrics.jsonl")]


def test_evaluation_does_not_alter_the_curve(workspace: Path, straight: Path) -> None:
    done = harness.train(workspace, arguments("unwatched", "evaluation.every_steps=0", "checkpoint.every_steps=0"))
    assert done.code == 0, done.output
    unwatched = workspace / "runs" / "unwatched"
    for key in ("loss", "grad_norm"):
        assert [s[key] for s in harness.records(unwatched)] == [s[key] for s in harness.records(straight)]


@pytest.mark.long
def test_held_out_loss_is_the_same_on_two_processes(workspace: Path, straight: Path) -> None:
    done = harness.train(workspace, arguments("two"), processes=2)
    assert done.code == 0, done.output
    for a, b in zip(
        harness.records(straight, "evaluation"), harness.records(workspace / "runs" / "two", "evaluation"), strict=True
    ):
        assert b["heldout_loss"] == pytest.approx(a["heldout_loss"], rel=1e-5)
        assert b["zlib_bits_per_byte"] == a["zlib_bits_per_byte"]


@pytest.mark.long
def test_other_text_under_the_same_name_is_refused(workspace: Path, tmp_path: Path) -> None:
    own = harness.write_corpus(tmp_path / "text")
    source = f"data.sources=[{{paths: [{own}]}}]"
    done = harness.train(workspace, arguments("edited", source, "train.stop_after_steps=8"))
    assert done.code == 0, done.output
    first = sorted(own.iterdir())[0]
    first.write_text(first.read_text() + " edited")
    done = harness.train(workspace, arguments("edited", source))
    assert done.code == 3, done.output
    assert "trained on other content of: source corpus, tokenizer" in done.output
    assert harness.last_step(workspace / "runs" / "edited" / "metrics.jsonl") == 8, "a refusal changes nothing"
    done = harness.train(workspace, arguments("edited", source, "resume.allow=[data]"))
    assert done.code == 0, done.output


def test_a_non_finite_gradient_stops_with_11_and_saves_nothing(workspace: Path) -> None:
    done = harness.train(workspace, arguments("hot", "optim.lr=1e30", "checkpoint.every_steps=1"))
    assert done.code == 11, done.output
    assert "not finite" in done.output
    assert "Traceback" not in done.output
    steps = harness.records(workspace / "runs" / "hot")
    assert not steps[-1]["finite"]
    assert all(s["finite"] for s in steps[:-1])
    assert harness.records(workspace / "runs" / "hot", "save")[-1]["step"] == steps[-1]["step"] - 1


def test_a_complete_run_is_lengthened_when_told_so(workspace: Path) -> None:
    first = arguments("longer", "train.steps=8", "schedule.warmup_steps=5")
    assert harness.train(workspace, first).code == 0
    more = arguments("longer", "train.steps=12", "resume.allow=[train.steps]")
    done = harness.train(workspace, more)
    assert done.code == 0, done.output
    run = workspace / "runs" / "longer"
    assert harness.last_step(run / "metrics.jsonl") == 12
    assert json.loads((run / "result.json").read_text())["step"] == 12
    done = harness.train(workspace, arguments("longer", "train.steps=9", "resume.allow=[train.steps]"))
    assert done.code == 3
    assert "at least the 12 steps" in done.output


@pytest.mark.long
def test_another_shape_is_refused_and_harms_nothing(workspace: Path) -> None:
    assert harness.train(workspace, arguments("shape", "train.stop_after_steps=3")).code == 0
    done = harness.train(workspace, arguments("shape", "model.mlp=64", "resume.allow=[model]"))
    assert done.code == 3, done.output
    assert "gate_proj.weight" in done.output
    assert "Traceback" not in done.output
    done = harness.train(workspace, arguments("shape", "train.stop_after_steps=5"))
    assert done.code == 0, done.output


@pytest.mark.parametrize("content", ["caf\u00e9".encode("latin-1"), *long(bytes(range(256)), "text".encode("utf-16"))])
def test_what_is_no_text_exits_4(workspace: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.txt").write_bytes(content * 50)
    done = harness.train(workspace, arguments("odd", f"data.sources=[{{paths: [{tmp_path}]}}]"))
    assert done.code == 4, done.output
    assert "odd.txt" in done.output
    assert "UTF-8" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("seconds", [0.25, 1.0, *long(0.0, 0.5, 1.5)])
def test_a_signal_before_training_exits_10_without_a_traceback(workspace: Path, seconds: float) -> None:
    process = subprocess.Popen(
        harness.command(arguments(f"early-{seconds}"), 1),
        cwd=workspace,
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert "run early-" in process.stdout.readline()  # announced, and about to import torch
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait(timeout=60) == 10, output
    # A KeyboardInterrupt may be lost in a library's callback; then the first step boundary acts on the signal.
    assert "interrupted at once" in output or "stopped at step 1 of" in output
    assert "Traceback" not in output


@pytest.mark.long
def test_missing_data_exits_4(workspace: Path) -> None:
    done = harness.train(workspace, arguments("nodata", "data.sources=[{paths: [nowhere/*.txt]}]"))
    assert done.code == 4
    assert "nowhere" in done.output
    assert "Traceback" not in done.output


@pytest.mark.long
def test_when_no_checkpoint_verifies_it_exits_13_on_every_rank(workspace: Path) -> None:
    done = harness.train(workspace, arguments("rotten", "train.stop_after_steps=8"))
    assert done.code == 0
    for path in (workspace / "runs" / "rotten" / "checkpoints").glob("step-*/model/*.safetensors"):
        path.write_bytes(b"rotten")
    done = harness.train(workspace, arguments("rotten"))
    assert done.code == 13, done.output
    assert "rank-00000.safetensors: 6 bytes instead of" in done.output
    assert "Traceback" not in done.output
