"""A refused resume changes no byte of the run, finished or not, and the first command goes on undisturbed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import harness
from tests.selection import in_ci

pytestmark = pytest.mark.slow

ONE = "data.sources=[{name: c, paths: [corpus]}]"
TWO = "data.sources=[{name: c, paths: [corpus]}, {name: e, paths: [more]}]"
RENAMED = "data.sources=[{name: d, paths: [corpus]}]"
MOMENTUM = ["optim.name=torch.optim:SGD", "optim.options={momentum: 0.9}"]
COMMON = [*harness.SMALL, "precision=fp32", "model.layers=1", "train.steps=8", "checkpoint.every_steps=2"]
ALL = "resume.allow=[data,data.sources,optim,train,model,schedule]"


def content(run: Path) -> dict[str, bytes]:
    """Every file of a run but those that say who holds it and how its last launch ended."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in (".lock", "exit.json")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with one source: ``straight`` of 8 steps, and ``run``, which stopped at 4."""
    cwd = tmp_path_factory.mktemp("refused")
    harness.write_corpus(cwd / "corpus")
    harness.write_corpus(cwd / "more", documents=30)
    for more in (["run.name=straight"], ["run.name=run", "train.stop_after_steps=4"]):
        done = harness.train(cwd, [*COMMON, ONE, *more])
        assert done.code == 0, done.output
    return cwd


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    cwd = tmp_path / "workspace"
    shutil.copytree(prepared, cwd)
    return cwd


def other_words(cwd: Path) -> None:
    next((cwd / "corpus").iterdir()).write_text("other words than before, and as many as it takes\n" * 20)


def no_records(cwd: Path) -> None:
    (cwd / "runs" / "run" / "metrics.jsonl").unlink()
    (cwd / "runs" / "run" / "metrics.jsonl").mkdir()


def other_sources_at_the_checkpoint(cwd: Path) -> None:
    """As config.yaml of an older version, edited by hand: the loader alone finds that its cursor knows others."""
    config = cwd / "runs" / "run" / "config.yaml"
    config.write_text(config.read_text().replace("name: c\n", "name: d\n"))


def nothing(cwd: Path) -> None:
    pass


REFUSALS: dict[str, tuple[list[str], int, str, Callable[[Path], None]]] = {
    "a source more": ([TWO, ALL], 3, "counted in samples of each source", nothing),
    "a source renamed": ([RENAMED, ALL], 3, "counted in samples of each source", nothing),
    "another length of samples": ([ONE, ALL, "data.seq_len=32"], 3, "samples of that length", nothing),
    "another packing": ([ONE, ALL, "data.packing=best_fit"], 3, "samples that were packed so", nothing),
    "another optimizer": ([ONE, ALL, *MOMENTUM], 3, "momentum_buffer", nothing),
    "another width": ([ONE, ALL, "model.mlp=64"], 3, "this model wants (64, 64)", nothing),
    "fewer steps than trained": ([ONE, ALL, "train.steps=3", "schedule.warmup_steps=1"], 3, "trained already", nothing),
    "other text": ([ONE], 3, "other content of: source c", other_words),
    "no text": (["data.sources=[{name: c, paths: [gone]}]"], 4, "matches no file", nothing),
    "records that cannot be written": ([ONE], 3, "metrics.jsonl", no_records),
    "a cursor of other sources": ([RENAMED, ALL], 4, "the saved data order knows", other_sources_at_the_checkpoint),
}
IN_CI = ("a source more", "another width", "a cursor of other sources")
"""Refused for what the configuration says, for what the weights are, and by the loader."""


@pytest.mark.parametrize("name", in_ci(REFUSALS, IN_CI))
def test_a_refused_resume_changes_no_byte(workspace: Path, name: str) -> None:
    overrides, code, words, before = REFUSALS[name]
    before(workspace)
    run = workspace / "runs" / "run"
    kept = content(run)
    refused = harness.train(workspace, [*COMMON, "run.name=run", *overrides])
    assert refused.code == code, refused.output
    assert words in refused.output
    assert "Traceback" not in refused.output
    assert content(run) == kept
    assert json.loads((run / "exit.json").read_text())["code"] == code


@pytest.mark.long
def test_after_a_refusal_the_first_command_goes_on_bitwise(workspace: Path) -> None:
    assert harness.train(workspace, [*COMMON, "run.name=run", TWO, ALL]).code == 3
    done = harness.train(workspace, [*COMMON, "run.name=run", ONE])
    assert done.code == 0, done.output
    straight, run = (workspace / "runs" / name for name in ("straight", "run"))
    losses = [[(s["step"], s["loss"], s["grad_norm"]) for s in harness.records(path)] for path in (straight, run)]
    assert losses[0] == losses[1]
    harness.assert_same_checkpoint(*(path / "checkpoints" / "step-00000008" for path in (straight, run)))


@pytest.mark.long
def test_a_finished_run_keeps_its_result(workspace: Path) -> None:
    run = workspace / "runs" / "straight"
    kept = content(run)
    for more, code in (([TWO, ALL, "train.steps=12"], 3), ([ONE, ALL, "model.mlp=64", "train.steps=12"], 3)):
        refused = harness.train(workspace, [*COMMON, "run.name=straight", *more])
        assert refused.code == code, refused.output
        assert content(run) == kept
    again = harness.train(workspace, [*COMMON, "run.name=straight", ONE])
    assert again.code == 0
    assert "run straight is complete" in again.output
    assert content(run) == kept


@pytest.mark.long
def test_sources_are_compared_field_by_field_and_moved_text_is_the_same_text(workspace: Path) -> None:
    (workspace / "corpus").rename(workspace / "moved")
    moved = ONE.replace("corpus", "moved")
    common = [*COMMON, "run.name=run"]
    heavier = harness.train(workspace, [*common, moved, "data.sources.0.weight=3"])
    assert heavier.code == 3
    assert "data.sources.0.weight = 3.0" in heavier.output
    assert "was started with 1.0 (source c)" in heavier.output
    assert heavier.output.count("rule:") == 1, "where the text lies is no other trajectory"
    assert "'resume.allow=[data.sources.0.weight]'" in heavier.output
    allowed = [moved, "data.sources.0.weight=3", "data.sources.0.document_unit=line", "resume.allow=[data]"]
    done = harness.train(workspace, [*common, *allowed])
    assert done.code == 0, done.output
    assert "going on with data.sources.0.weight: 1.0 -> 3.0 (source c)" in done.output
    assert "going on with data.sources.0.document_unit: 'file' -> 'line' (source c)" in done.output
    assert "going on with other content of: source c" in done.output
    (overrides,) = [json.loads(line)["overrides"] for line in (workspace / "runs/run/launches.jsonl").open()][1:]
    assert "data.sources.0.weight=3" in overrides
