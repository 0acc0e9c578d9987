"""Every layout gives the single process's curve: here data parallel. The tolerances are docs/numerics.md's contract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from trainer.config import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import prepare_corpus
from trainer.data.loader import TrainLoader

pytestmark = pytest.mark.slow


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


def curve(workspace: Path, precision: str, processes: int) -> list[dict[str, Any]]:
    """The steps of a run; BF16 also on a CPU without BF16 instructions, which computes the same, slowly."""
    name = f"{precision}-{processes}"
    run = workspace / "runs" / name
    if not run.exists():
        layout = [f"precision={precision}", "precision.cpu_fallback=null", f"run.name={name}"]
        overrides = [*harness.SMALL, *layout, "data.sources=[{paths: [corpus]}]"]
        done = harness.train(workspace, overrides, processes)
        assert done.code == 0, done.output
    steps = harness.records(run)
    assert [s["step"] for s in steps] == list(range(1, 21))
    return steps


@pytest.mark.parametrize("processes", [2, 4])
def test_fp32_data_parallel_equals_one_process(workspace: Path, processes: int) -> None:
    one, many = curve(workspace, "fp32", 1), curve(workspace, "fp32", processes)
    assert one[-1]["loss"] < 0.95 * one[0]["loss"], "the contract asks for a falling loss"
    targets = [step["target_tokens"] for step in one]
    assert targets == [step["target_tokens"] for step in many]
    assert len(set(targets)) > 5, "uneven documents and padding make the number of targets vary"
    assert max(targets) < 512
    for a, b in zip(one, many, strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * a["loss"], f"loss of step {a['step']}"
        assert abs(a["grad_norm"] - b["grad_norm"]) <= 1e-4 * a["grad_norm"], f"norm of step {a['step']}"


@pytest.mark.parametrize("precision", ["bf16_mixed", "bf16"])
@pytest.mark.parametrize("processes", [2, 4])
def test_bf16_data_parallel_follows_one_process(workspace: Path, precision: str, processes: int) -> None:
    one, many = curve(workspace, precision, 1), curve(workspace, precision, processes)
    assert abs(one[0]["loss"] - many[0]["loss"]) <= 2e-3 * one[0]["loss"]
    assert abs(one[-1]["loss"] - many[-1]["loss"]) <= 5e-3 * one[-1]["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
def test_initial_parameters_are_bitwise_equal(tmp_path: Path, precision: str) -> None:
    """Digests of every weight, master and rounded, on every rank of 1, 2 and 4 processes."""
    digests: set[str] = set()
    for processes in (1, 2, 4):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        out = tmp_path / f"digests-{processes}"
        out.mkdir()
        subprocess.run(
            [sys.executable, *launch, str(Path(__file__).with_name("digest_initial.py")), str(out), precision],
            env={**harness.environment(), "PYTHONPATH": str(harness.ROOT)},
            check=True,
            timeout=120,
        )
        found = [json.loads(path.read_text()) for path in sorted(out.iterdir())]
        assert len(found) == processes
        digests |= {json.dumps(ranks, sort_keys=True) for ranks in found}
    assert len(digests) == 1
    assert len(json.loads(digests.pop())) == 2 * (2 + 2 * 9)
