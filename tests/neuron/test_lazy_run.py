"""scripts/train.py with backend=neuron on torch_xla's real lazy tensors: one process, the CPU in the device's place.

neuronx-distributed is the double, or its real source where NXD_SOURCE names it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import harness
from tests.neuron.library import DOUBLE, LAZY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = [
    *harness.SMALL,
    "train.steps=50",
    "train.microbatch=2",
    "evaluation.every_steps=20",
    "checkpoint.every_steps=20",
    "checkpoint.keep=0",
    "precision=fp32",
    "model.dropout=0.1",
    "model.frozen=[model.layers.0.mlp.*]",
    "data.sources=[{paths: [corpus]}]",
    f"evaluation.sets=[{', '.join(f'{{name: {s}, kind: tasks, paths: [{s}.jsonl]}}' for s in ('quiz', 'exact'))}]",
]
"""Four microbatches a step, five steps of warm-up, evaluations and samples, saves, and a line each step; dropout, and a
layer that is not trained; choices and answers of several lengths."""


def train(cwd: Path, overrides: list[str], name: str, more: Mapping[str, str] | None = None) -> str:
    """A run on the neuron backend; what it printed."""
    environment = {**LAZY, "PYTHONPATH": os.pathsep.join([str(harness.ROOT), str(DOUBLE)]), **(more or {})}
    done = harness.train(cwd, [*overrides, "backend=neuron", f"run.name={name}"], timeout=500, more=environment)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    return done.output


def graphs(output: str) -> dict[str, int]:
    """Graphs compiled in each phase of a run, as it says at its end. A late one would have ended it with an error."""
    (line,) = re.findall(r"graphs compiled: (.*); outside", output)
    return {name: int(count) for name, count in re.findall(r"([a-z-]+) (\d+) \(run", line)}


def kept(run: Path) -> dict[Path, bytes]:
    """A run's files, but for those that name its last process."""
    return {
        path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in ("exit.json", ".lock")
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 50 steps three times: by the native backend, straight through, and stopped after 20 and resumed.

    Besides, twice what was there when it stopped: ``begun`` and ``crossing``.
    """
    cwd = tmp_path_factory.mktemp("lazy")
    harness.write_corpus(cwd / "corpus")
    quiz = [{"question": "def f" * n, "choices": ["(x)", " return", "self." * n], "answer": n % 3} for n in range(1, 7)]
    exact = [{"prompt": "def f" * n, "answer": "(", "tokens": 2 + n} for n in (1, 2)]
    for name, items in (("quiz", quiz), ("exact", exact)):
        (cwd / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    done = harness.train(cwd, [*LONG, "run.name=native"])
    assert done.code == 0, done.output
    (cwd / "straight.txt").write_text(train(cwd, LONG, "straight"))
    train(cwd, [*LONG, "train.stop_after_steps=20"], "resumed")
    for name in ("begun", "crossing"):
        shutil.copytree(cwd / "runs" / "resumed", cwd / "runs" / name)
    (cwd / "resumed.txt").write_text(train(cwd, LONG, "resumed"))
    return cwd


def test_two_graphs_train_and_none_comes_late(runs: Path) -> None:
    for name in ("straight", "resumed"):
        assert graphs((runs / f"{name}.txt").read_text()) == {
            "publish": 1,
            "forward-backward": 1,
            "optimizer": 1,
            "evaluation": 1,
            "sample": 1,
        }
    assert "resuming resumed from step 20" in (runs / "resumed.txt").read_text()


def test_the_curve_is_the_native_backends(runs: Path) -> None:
    """The layout contract in FP32: losses to 1e-5, gradient norms to 1e-4, over 50 steps."""
    native, neuron = (harness.records(runs / "runs" / name) for name in ("native", "straight"))
    assert len(native) == len(neuron) == 50
    assert neuron[-1]["loss"] < 0.9 * neuron[0]["loss"]
    for a, b in zip(native, neuron, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
        assert (a["lr"], a["target_tokens"]) == (b["lr"], b["target_tokens"])
    evaluations = [harness.records(runs / "runs" / name, "evaluation") for name in ("native", "straight")]
    for a, b in zip(*evaluations, strict=True):
        assert b["heldout_loss"] == pytest.approx(a["heldout_loss"], rel=1e-5)
    sets = [harness.records(runs / "runs" / name, "set") for name in ("native", "straight")]
    assert len(sets[0]) == 6
    for a, b in zip(*sets, strict=True):
        assert {**a, "seconds": None} == {**b, "seconds": None}


def test_a_resume_is_bitwise(runs: Path) -> None:
    """Losses and norms, and masters and moments in the last checkpoint, byte for byte."""
    for kind in ("step", "evaluation"):
        straight, resumed = (harness.records(runs / "runs" / name, kind) for name in ("straight", "resumed"))
        compared = ("step", "loss", "grad_norm", "lr", "target_tokens", "heldout_loss", "sample")
        assert [[r.get(k) for k in compared] for r in straight] == [[r.get(k) for k in compared] for r in resumed]
    checkpoints = [runs / "runs" / name / "checkpoints" / "step-00000050" for name in ("straight", "resumed")]
    harness.assert_same_checkpoint(*checkpoints)


@pytest.mark.long
def test_extraction_runs_every_graph_and_keeps_nothing(runs: Path) -> None:
    """As under neuron_parallel_compile, which sets the variable, on a run that has begun: results may be zeros."""
    run = runs / "runs" / "begun"
    before = kept(run)
    output = train(runs, LONG, "begun", {"NEURON_EXTRACT_GRAPHS_ONLY": "1"})
    assert set(graphs(output)) == {"publish", "forward-backward", "optimizer", "evaluation", "sample"}
    assert "nothing was computed or kept" in output
    assert kept(run) == before


@pytest.mark.long
def test_a_checkpoint_goes_on_in_the_native_backend(runs: Path) -> None:
    """The run that neuron saved at step 50 is complete for the native backend too, and one at step 20 goes on there."""
    done = harness.train(runs, [*LONG, "run.name=crossing"])
    assert done.code == 0, done.output
    assert "resuming crossing from step 20" in done.output
    straight, crossed = (harness.records(runs / "runs" / name) for name in ("native", "crossing"))
    for a, b in zip(straight, crossed, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
