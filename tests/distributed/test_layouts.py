"""Layouts through the real front door, scripts/train.py under torchrun: training, evaluation, saving, resuming.

All the layouts, without the front door: test_matrix.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import harness
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import prepare_corpus
from trainer.data.loader import TrainLoader

pytestmark = pytest.mark.slow

PIPELINE = ["parallel.pp=2", "parallel.tp=2", "parallel.sp=true", "parallel.recompute=full"]
ZERO = ["parallel.zero=3"]
CHECKED = ["model.tied=true", "evaluation.every_steps=10", "evaluation.windows=8", "evaluation.sample_tokens=8"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a corpus small enough that 20 steps meet its padded last sample more than once."""
    cwd = tmp_path_factory.mktemp("layouts")
    harness.write_corpus(cwd / "corpus")
    return cwd


def test_the_corpus_pads_its_last_sample_within_the_steps(workspace: Path) -> None:
    """What the contract asks of the data: padding among the targets' positions, in more than one epoch."""
    config = DataConfig(
        sources=[SourceConfig(paths=[str(workspace / "corpus")])],
        tokenizer=TokenizerConfig(vocab=512),
        seq_len=64,
        heldout_fraction=0.1,
        cache_dir=str(workspace / "cache"),
    )
    corpus = prepare_corpus(config, 512)
    loader = TrainLoader(corpus, 64, True, 1234, 8, 1, 0, 1, None, 0)
    padded = [int((b.document_ids < 0).sum()) for _ in range(20) for b in next(loader).microbatches]
    assert sum(count > 0 for count in padded) >= 2


def run(workspace: Path, name: str, processes: int, overrides: list[str]) -> Path:
    """A run's directory; BF16 also on a CPU without BF16 instructions, which computes the same, slowly."""
    setting = [f"run.name={name}", "precision.cpu_fallback=null", "data.sources=[{paths: [corpus]}]"]
    done = harness.train(workspace, [*harness.SMALL, *CHECKED, *setting, *overrides], processes)
    assert done.code == 0, done.output
    return workspace / "runs" / name


@pytest.fixture(scope="module")
def one(workspace: Path) -> Path:
    """The single process."""
    return run(workspace, "one", 1, ["precision=fp32"])


def evaluations(directory: Path) -> list[dict[str, Any]]:
    return harness.records(directory, "evaluation")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "processes", "layout"),
    [("tp2-sp-pp2-full", 4, PIPELINE), ("dp2-zero3", 2, ZERO)],
)
def test_a_run_equals_one_process(workspace: Path, one: Path, name: str, processes: int, layout: list[str]) -> None:
    many = run(workspace, name, processes, ["precision=fp32", *layout])
    harness.assert_same_curve(harness.records(one), harness.records(many))
    assert [record["step"] for record in evaluations(one)] == [10, 20]
    assert harness.worst_difference(evaluations(one), evaluations(many), "heldout_loss") <= 1e-5
    assert [record["sample"] for record in evaluations(one)] == [record["sample"] for record in evaluations(many)]


def test_a_run_goes_on_in_another_layout(workspace: Path, one: Path) -> None:
    """Stopped and saved as a pipeline, resumed under ZeRO: the same command but for the layout."""
    run(workspace, "moved", 4, ["precision=fp32", *PIPELINE, "train.stop_after_steps=7"])
    moved = run(workspace, "moved", 2, ["precision=fp32", *ZERO])
    harness.assert_same_curve(harness.records(one), harness.records(moved))
