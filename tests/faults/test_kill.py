"""kill -9 on every rank, and the same command again: bitwise the run that nobody killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from tests import harness

pytestmark = pytest.mark.slow

LONG = ["train.steps=60", "train.tokens_per_step=4096", "checkpoint.every_steps=7", "checkpoint.keep=0"]


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_three_times_equals_never_killed(tmp_path: Path, precision: str, processes: int) -> None:
    harness.write_corpus(tmp_path / "corpus")
    common = [
        *harness.SMALL,
        *LONG,
        f"precision={precision}",
        "precision.cpu_fallback=null",
        "data.sources=[{paths: [corpus]}]",
        "evaluation.every_steps=20",
    ]
    straight, killed = tmp_path / "runs" / "straight", tmp_path / "runs" / "killed"
    done = harness.train(tmp_path, [*common, "run.name=straight"], processes)
    assert done.code == 0, done.output
    overrides = [*common, "run.name=killed"]
    # Just after a save, in the middle, and between a save and an evaluation.
    reached = [
        harness.train_and_kill(tmp_path, overrides, processes, killed / "metrics.jsonl", step) for step in (8, 25, 41)
    ]
    assert reached[0] < reached[1] < reached[2] < 60
    done = harness.train(tmp_path, overrides, processes)
    assert done.code == 0, done.output
    assert "resuming killed from step" in done.output

    for kind in ("step", "evaluation"):
        expected, actual = harness.records(straight, kind), harness.records(killed, kind)
        assert len(expected) == (60 if kind == "step" else 3)
        compared = ("step", "loss", "grad_norm", "lr", "target_tokens", "heldout_loss", "bits_per_byte", "sample")
        for a, b in zip(expected, actual, strict=True):
            assert {k: a.get(k) for k in compared} == {k: b.get(k) for k in compared}
    assert_same_checkpoint(straight / "checkpoints" / "step-00000060", killed / "checkpoints" / "step-00000060")


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """Weights, moments, state and data cursor, byte for byte."""
    files = sorted(path.relative_to(a) for path in a.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(b) for path in b.rglob("*.safetensors"))
    assert len(files) >= 2
    for file in files:
        assert (a / file).read_bytes() == (b / file).read_bytes(), file
        with safe_open(a / file, framework="pt") as reader:
            assert list(reader.keys())
    for name in ("state.json", "data.json"):
        assert (a / name).read_text() == (b / name).read_text()
