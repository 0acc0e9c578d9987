"""Text appended to a source between two launches, and weights that change by stage: what a run does with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import harness
from tests.unit.test_data_support import byte_tokenizer

pytestmark = pytest.mark.slow

COMMON = [
    *[override for override in harness.SMALL if "tokenizer.vocab" not in override],
    *("precision=fp32", "data.tokenizer.kind=file", "data.tokenizer.path=tokenizer.json", "run.name=run"),
    *(
        "data.sources=[{name: a, paths: [a]}, {name: b, paths: [b]}]",
        "train.steps=24",
        "checkpoint.every_steps=6",
        "checkpoint.keep=4",
    ),
]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    byte_tokenizer().save(tmp_path / "tokenizer.json")
    for name, first in (("a", 0), ("b", 20)):
        files = sorted(harness.write_corpus(tmp_path / "all").iterdir())[first : first + 20]
        (tmp_path / name).mkdir()
        for number, file in enumerate(files):
            (tmp_path / name / f"{number:02d}.txt").write_text(file.read_text())
    return tmp_path


def drawn(run: Path, step: int) -> dict[str, int]:
    state = json.loads((run / "checkpoints" / f"step-{step:08d}" / "data.json").read_text())
    counts: dict[str, int] = state["cursor"]["per_source"]
    return counts


def test_appended_text_comes_next_and_nothing_comes_twice(cwd: Path) -> None:
    run = cwd / "runs" / "run"
    done = harness.train(cwd, [*COMMON, "train.stop_after_steps=6"])
    assert done.code == 0, done.output
    assert "source a  read " in done.output
    for number in range(20, 30):
        (cwd / "b" / f"{number}.txt").write_text(f"More of b, number {number}. " * 12)
    refused = harness.train(cwd, COMMON)
    assert refused.code == 3
    assert "source b" in refused.output
    resumed = harness.train(cwd, [*COMMON, "resume.allow=[data]"], processes=2)
    assert resumed.code == 0, resumed.output
    assert "b has " in resumed.output
    assert "tokens more: they are read once before this epoch of it ends" in resumed.output
    assert "a is another text" not in resumed.output
    assert drawn(run, 6) == {"a": 24, "b": 24}
    assert drawn(run, 24) == {"a": 96, "b": 96}
    steps = harness.records(run)
    assert [step["step"] for step in steps] == [*range(1, 25)]
    assert all(step["epochs"].keys() == {"a", "b"} for step in steps)


def test_a_stage_begins_at_its_token(cwd: Path) -> None:
    stage = "data.stages=[{from_tokens: 6144, weights: {a: 0}}]"  # 12 steps of 8 samples of 64 tokens
    done = harness.train(cwd, [*COMMON, stage])
    assert done.code == 0, done.output
    run = cwd / "runs" / "run"
    assert drawn(run, 12) == {"a": 48, "b": 48}
    assert drawn(run, 18) == {"a": 48, "b": 96}
    refused = harness.train(cwd, [*COMMON, "run.name=other", stage.replace("a: 0", "c: 0")])
    assert refused.code == 3
    assert "names of data.sources: a, b" in refused.output
    worn = harness.train(cwd, [*COMMON, "run.name=worn", "data.max_epochs=0.5"])
    assert worn.code == 4
    assert "data.max_epochs" in worn.output
    assert "Traceback" not in worn.output
