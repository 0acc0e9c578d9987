"""A stop costs at most the part of a step that was under way: the weights of its beginning are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.ranks import Task, run
from tests.selection import in_ci

pytestmark = pytest.mark.slow

SLOW = 1.5
"""Seconds of a forward pass: a step of four microbatches takes 6 s or more."""
STEPS = 4
LAYOUTS = {
    "one": (1, ["train.microbatch=2"]),
    "dp2": (2, ["train.microbatch=1"]),
    "tp2": (2, ["parallel.tp=2", "train.microbatch=2"]),
    "pp2": (2, ["parallel.pp=2", "train.microbatch=2"]),
    "dp2-tp2-zero2": (4, ["parallel.tp=2", "parallel.zero=2", "train.microbatch=1"]),
    "tp2-pp2": (4, ["parallel.tp=2", "parallel.pp=2", "train.microbatch=2"]),
}


def _overrides(name: str, layout: str) -> list[str]:
    return [
        *harness.SMALL,
        *LAYOUTS[layout][1],
        "data.sources=[{paths: [corpus]}]",
        f"train.steps={STEPS}",
        "schedule.warmup_steps=2",
        "train.tokens_per_step=512",
        "precision=fp32",
        f"run.name={name}",
    ]


def _launch(cwd: Path, kind: str, name: str, layout: str, slow: float = 0, more: tuple[str, ...] = ()) -> list[Any]:
    processes, _ = LAYOUTS[layout]
    (cwd / "signalled").unlink(missing_ok=True)
    arguments = {"kind": kind, "overrides": [*_overrides(name, layout), *more], "seconds": 100, "slow": slow}
    arguments["rank"] = processes - 1  # the signal reaches the last rank alone
    return run(Task("tests.faults.injected:launch", processes, arguments, seconds=120), cwd)


@pytest.mark.parametrize("layout", in_ci(LAYOUTS, ["dp2"]))
def test_a_stop_in_a_step_saves_the_weights_of_its_beginning(tmp_path: Path, layout: str) -> None:
    harness.write_corpus(tmp_path / "corpus")
    whole = _launch(tmp_path, "none", "whole", layout)
    assert [rank["code"] for rank in whole] == [0] * len(whole), whole[0]["output"]
    cut = _launch(tmp_path, "signal in a step", "cut", layout, SLOW)
    assert [rank["code"] for rank in cut] == [10] * len(cut), cut[0]["output"]
    assert "stopped at step 2 of 4, saved" in cut[0]["output"]
    passes = 1 if "pp" not in layout else 3  # a pipeline's last rank waits for what its first has begun
    for rank in cut:
        assert 0 < rank["since"] < passes * SLOW + 3, f"{rank['since']} s after the signal"
    assert [path.name for path in (tmp_path / "runs/cut/checkpoints").glob("step-*")] == ["step-00000002"]
    again = _launch(tmp_path, "none", "cut", layout)
    assert [rank["code"] for rank in again] == [0] * len(again), again[0]["output"]
    names = [f"runs/{name}/checkpoints/step-{STEPS:08d}" for name in ("cut", "whole")]
    harness.assert_same_checkpoint(*(tmp_path / name for name in names))
    curves = [
        [(line["step"], line["loss"], line["grad_norm"]) for line in harness.records(tmp_path / "runs" / name)]
        for name in ("cut", "whole")
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("kind", "code", "saved"),
    [
        ("signal in set-up", 10, []),
        ("signal in data", 10, []),
        ("signal in evaluation", 10, ["step-00000002"]),
        ("signal in a save", 10, ["step-00000002"]),
    ],
)
@pytest.mark.long
def test_a_stop_outside_of_steps(tmp_path: Path, kind: str, code: int, saved: list[str]) -> None:
    harness.write_corpus(tmp_path / "corpus")
    more = ("evaluation.every_steps=2", "checkpoint.every_steps=2")
    slow = SLOW if "evaluation" in kind else 0
    found = _launch(tmp_path, kind, "cut", "dp2", slow, more)
    assert found[1]["code"] == code, found[0]["output"]
    assert [path.name for path in sorted((tmp_path / "runs/cut/checkpoints").glob("step-*"))] == saved
    again = _launch(tmp_path, "none", "cut", "dp2", 0, more)
    assert [rank["code"] for rank in again] == [0, 0], again[0]["output"]
