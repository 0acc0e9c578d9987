"""evaluation.sets while a model trains: on several layouts, beside scripts/eval.py, and the best checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.selection import in_ci

pytestmark = pytest.mark.slow

WORDS = ("the", "of", "return", "self", "import", "cat", "None", "a")
LAYOUTS = {
    "dp2": ["parallel.zero=3"],
    "tp2": ["parallel.tp=2", "parallel.sp=true"],
    "pp2": ["parallel.pp=2"],
    "cp2": ["parallel.cp=2"],
}


def quiz() -> list[dict[str, Any]]:
    """Of several lengths; the longest context is cut from its left."""
    items = []
    for number, word in enumerate(WORDS):
        context = f"{'def f(x): ' * (number if number < 7 else 40)}{word}"
        items.append({"question": context, "choices": [f"{WORDS[number - 1]} x", "y", word], "answer": number % 3})
    return items


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("sets")
    harness.write_corpus(cwd / "corpus")
    (cwd / "other.txt").write_text("def other(value):\n    return value\n" * 40)
    (cwd / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in quiz()))
    exact = [{"prompt": f"def {word}", "answer": ["(", ":", word], "tokens": 3, "stop": ["\n"]} for word in WORDS]
    (cwd / "exact.jsonl").write_text("".join(json.dumps(item) + "\n" for item in exact))
    return cwd


def arguments(name: str, *more: str) -> list[str]:
    tasks = ", ".join(f"{{name: {one}, kind: tasks, paths: [{one}.jsonl]}}" for one in ("quiz", "exact"))
    sets = f"evaluation.sets=[{{name: other, paths: [other.txt]}}, {tasks}]"
    watching = ["evaluation.every_steps=5", "evaluation.windows=8", "evaluation.sample_tokens=4", sets]
    corpus = "data.sources=[{paths: [corpus]}]"
    return [*harness.SMALL, "precision=fp32", corpus, *watching, f"run.name={name}", *more]


def trained(workspace: Path, name: str, processes: int = 1, *more: str) -> Path:
    done = harness.train(workspace, arguments(name, *more), processes)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    return workspace / "runs" / name


@pytest.fixture(scope="module")
def alone(workspace: Path) -> Path:
    return trained(workspace, "alone", 1, "evaluation.best=other/loss", "checkpoint.keep=1")


def by_set(run: Path, name: str) -> list[dict[str, Any]]:
    return [record for record in harness.records(run, "set") if record["set"] == name]


def test_each_set_has_its_records(alone: Path) -> None:
    for name in ("other", "quiz", "exact"):
        assert [record["step"] for record in by_set(alone, name)] == [5, 10, 15, 20]
    result = json.loads((alone / "result.json").read_text())
    last = by_set(alone, "other")[-1]
    assert result["other/loss"] == last["loss"]
    assert result["heldout_loss"] == harness.records(alone, "evaluation")[-1]["heldout_loss"]
    assert last["bits_per_byte"] / last["loss"] == pytest.approx(
        by_set(alone, "other")[0]["bits_per_byte"] / by_set(alone, "other")[0]["loss"]
    )


def test_the_tasks_are_scored_as_eval_scores_the_checkpoint(workspace: Path, alone: Path) -> None:
    command = [
        sys.executable,
        str(harness.ROOT / "scripts/eval.py"),
        str(alone),
        "--tasks",
        "quiz.jsonl",
        "exact.jsonl",
    ]
    done = subprocess.run(
        [*command, "--output", "eval.json"], cwd=workspace, env=harness.environment(), check=False, timeout=200
    )
    assert done.returncode == 0
    choices, exact = json.loads((workspace / "eval.json").read_text())["tasks"]
    last = by_set(alone, "quiz")[-1]
    # The window of training is seq_len: an item whose context is cut there may be scored otherwise.
    assert {name: last[name] for name in ("acc", "acc_norm", "acc_bytes", "acc_tokens")} == pytest.approx(
        {name: choices[name] for name in ("acc", "acc_norm", "acc_bytes", "acc_tokens")}, abs=1 / len(WORDS) + 1e-9
    )
    assert by_set(alone, "exact")[-1]["exact_match"] == exact["exact_match"]


def test_patience_ends_a_run_that_gets_no_better_and_a_killed_one_likewise(workspace: Path) -> None:
    """A learning rate of nothing: the first evaluation stays the best one."""
    more = ["optim.lr=1e-12", "evaluation.best=exact/exact_match", "evaluation.patience=2"]
    straight = trained(workspace, "patient", 1, *more)
    result = json.loads((straight / "result.json").read_text())
    assert (result["step"], result["best_step"]) == (15, 5)
    assert [record["step"] for record in by_set(straight, "exact")] == [5, 10, 15]
    trained(workspace, "parted", 1, *more, "train.stop_after_steps=12")
    parted = trained(workspace, "parted", 1, *more)
    assert json.loads((parted / "result.json").read_text())["step"] == 15


@pytest.mark.parametrize("layout", in_ci(LAYOUTS, ["tp2"]))
def test_every_layout_scores_alike(workspace: Path, alone: Path, layout: str) -> None:
    run = trained(workspace, layout, 2, *LAYOUTS[layout])
    assert harness.worst_difference(by_set(alone, "other"), by_set(run, "other"), "loss") <= 1e-5
    for name, metrics in (("quiz", ("acc", "acc_norm", "acc_bytes", "acc_tokens")), ("exact", ("exact_match",))):
        assert [[one[m] for m in metrics] for one in by_set(run, name)] == [
            [one[m] for m in metrics] for one in by_set(alone, name)
        ]


def test_the_best_checkpoint_is_saved_and_stays(alone: Path) -> None:
    losses = {record["step"]: record["loss"] for record in by_set(alone, "other")}
    best = min(losses, key=lambda step: (losses[step], step))
    result = json.loads((alone / "result.json").read_text())
    assert (result["best_step"], result["best_other/loss"]) == (best, losses[best])
    kept = sorted(int(path.name[5:]) for path in (alone / "checkpoints").glob("step-*"))
    assert kept == sorted({best, 20})


@pytest.mark.long
def test_what_is_wrong_with_a_file_is_said_before_training(workspace: Path) -> None:
    (workspace / "bad.jsonl").write_text('{"question": "x", "choices": ["a", "b"], "answer": [0, 1]}\n')
    sets = "[{name: gone, paths: [nowhere.txt]}, {name: bad, kind: tasks, paths: [bad.jsonl]}]"
    done = harness.train(workspace, arguments("refused", f"evaluation.sets={sets}"))
    assert done.code == 4, done.output
    assert "evaluation.sets.0.paths" in done.output
    assert "bad.jsonl:1" in done.output
    assert "2 are marked" in done.output
    assert "Traceback" not in done.output
    exact = "[{name: exact, kind: tasks, paths: [exact.jsonl]}]"
    done = harness.train(workspace, arguments("kind", f"evaluation.sets={exact}", "evaluation.best=exact/acc"))
    assert done.code == 3, done.output
    assert "evaluation.best=exact/exact_match" in done.output


def test_a_stop_within_a_set_ends_all_ranks(workspace: Path) -> None:
    """Data-parallel ranks meet in every token of an exact set: one that ended alone would leave the other there."""
    prompt = json.dumps({"prompt": "def", "answer": "x", "tokens": 40, "stop": []})
    (workspace / "long.jsonl").write_text(f"{prompt}\n" * 2000)
    sets = "evaluation.sets=[{name: long, kind: tasks, paths: [long.jsonl]}]"
    log = workspace / "stopped.txt"
    with log.open("w") as out:
        launcher = subprocess.Popen(
            harness.command(arguments("stopped", sets, "evaluation.every_steps=5"), 2),
            cwd=workspace,
            env=harness.environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 120
        while "step      5/20" not in log.read_text():
            assert launcher.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "training hangs"
            time.sleep(0.05)
        time.sleep(3)  # well within the set, which takes minutes
        os.kill(harness.children(launcher.pid)[1], signal.SIGTERM)
        launcher.wait(timeout=60)
    run = workspace / "runs" / "stopped"
    assert json.loads((run / "exit.json").read_text())["code"] == 10, log.read_text()
    assert "exitcode  : 10" in log.read_text()
    assert [record["step"] for record in harness.records(run, "save")] == [5]
    assert not harness.records(run, "set")
