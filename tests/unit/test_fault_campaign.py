"""The campaign's own judgement: it sees a checkpoint that is not whole, another curve, a row that fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import proof
from tests.faults.campaign.moments import Look, moment
from tests.faults.campaign.table import Row, table

FILES = {"model/rank-00000.safetensors": b"weights", "state.json": b"{}"}


def saved(run: Path, step: int) -> Path:
    """A checkpoint, as docs/checkpoints.md says it looks."""
    path = run / "checkpoints" / f"step-{step:08d}"
    listed = {}
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
        listed[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"format": 2, "step": step, "topology": {}, "files": listed}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_a_start_goes_on_from_the_newest_sound_checkpoint(tmp_path: Path) -> None:
    assert proof.newest_sound(tmp_path) == 0
    older, newer = saved(tmp_path, 3), saved(tmp_path, 6)
    assert (proof.fault(older), proof.fault(newer), proof.newest_sound(tmp_path)) == ("", "", 6)
    (newer / "state.json").write_bytes(b"[]")
    assert proof.newest_sound(tmp_path) == 3
    (older / "manifest.json").write_text("{")
    assert proof.newest_sound(tmp_path) == -1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "model" / "more").write_text(""),
        lambda path: (path / "model/rank-00000.safetensors").write_bytes(b"weight"),
        lambda path: path.rename(path.with_name("step-00000004")),
    ],
)
def test_what_is_not_as_the_manifest_says_is_a_fault(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    damage(saved(tmp_path, 3))
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert proof.fault(path)


def test_a_curve_that_differs_in_its_last_bit_is_another(tmp_path: Path) -> None:
    curves = {"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.30000000000000004], "c": [0.1, 0.2]}
    for name, losses in curves.items():
        lines = [{"kind": "step", "step": n, "loss": loss, "grad_norm": 1.0} for n, loss in enumerate(losses, 1)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / name / "result.json").write_text("{}")
    saved(tmp_path / "a", 3)  # where the sets of checkpoints differ, their bytes are not looked at
    for name in ("b", "c"):
        found = proof.differences(tmp_path / name, tmp_path / "a")
        assert found == ["the step records of metrics.jsonl", "checkpoints [], not [3]"]


@pytest.mark.parametrize(
    ("now", "said", "under_way"),
    [
        (Look(), "begun", "set-up"),
        (Look(reading=True), "begun", "data"),
        (Look(), "step      4/30  loss 6.2", "step"),
        (Look(), "step     10/30  loss 6.2", "evaluation"),
        (Look(), "step     10/30  loss 6.2\nstep     10/30  held-out loss 6.2", "step"),
        (Look(saving=frozenset({("a", 1, 2)})), "step      4/30  loss 6.2", "save"),
        (Look(steps=(6, 3), latest="step-00000003"), "step      7/30  loss 6.2", "rename"),
        (Look(steps=(12, 6, 3), latest="step-00000012"), "step      7/30  loss 6.2", "retention"),
        (Look(steps=(12, 9, 6), latest="step-00000012", removing=frozenset({("b", 1, 2)})), "", "retention"),
        (Look(steps=(15, 12, 9), latest="step-00000015"), "step     16/30  loss 6.2", "step"),
    ],
)
def test_what_was_under_way(now: Look, said: str, under_way: str) -> None:
    before = Look(steps=(3,), latest="step-00000003")
    assert moment(before, now, said) == under_way


def test_what_an_earlier_launch_left_is_not_under_way() -> None:
    left = Look(frozenset({("a", 1, 2)}), frozenset({("b", 3, 4)}), (6, 3), "step-00000003")
    assert moment(left, left, "step      7/30  loss 6.2") == "step"


def test_a_row_passes_when_all_its_faults_ended_as_they_should() -> None:
    row = Row("lost rank", wanted=2)
    row.add("step", {1: -9, 0: 12})
    row.compare([])
    assert not row.passed, "one fault of two"
    row.add("step", {0: 12, 1: -9})
    assert row.passed
    assert "| lost rank | step x2 | 2 | 12 -9 x2 |  | yes (1 runs) |" in table([row])
    row.compare(["result.json"])
    assert not row.passed
    assert "NO (1)" in table([row])
    assert "lost rank: not bitwise: result.json" in table([row])
