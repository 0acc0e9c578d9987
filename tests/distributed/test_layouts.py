"""Every layout gives the single process's curve. The tolerances are docs/numerics.md's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import harness
from trainer.config import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import prepare_corpus
from trainer.data.loader import TrainLoader

pytestmark = pytest.mark.slow

HEADS = {
    "4/2": [],
    # 9 query and 3 key-value heads: on 2 ranks one head is held twice, on 4 ranks there is padding besides.
    "9/3": ["model.hidden=72", "model.heads=9", "model.kv_heads=3", "model.tied=false", "model.qkv_bias=true"],
}
LAYOUTS = {"one": (1, 1), "dp2": (2, 1), "dp4": (4, 1), "tp2": (2, 2), "tp4": (4, 4), "dp2-tp2": (4, 2)}
"""Processes and tensor-parallel size."""
FP32 = [("4/2", "dp4"), ("4/2", "tp2"), ("9/3", "tp2"), ("9/3", "tp4"), ("9/3", "dp2-tp2")]
BF16 = [
    ("4/2", "bf16_mixed", "dp4"),
    ("9/3", "bf16_mixed", "tp4"),
    ("9/3", "bf16_mixed", "dp2-tp2"),
    ("9/3", "bf16", "tp4"),
]


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


def curve(workspace: Path, heads: str, precision: str, layout: str) -> list[dict[str, Any]]:
    """The steps of a run; BF16 also on a CPU without BF16 instructions, which computes the same, slowly."""
    processes, tp = LAYOUTS[layout]
    name = f"{heads.replace('/', '-')}-{precision}-{layout}"
    run = workspace / "runs" / name
    if not run.exists():
        setting = [f"precision={precision}", "precision.cpu_fallback=null", f"run.name={name}", f"parallel.tp={tp}"]
        overrides = [*harness.SMALL, *HEADS[heads], *setting, "data.sources=[{paths: [corpus]}]"]
        done = harness.train(workspace, overrides, processes)
        assert done.code == 0, done.output
    steps = harness.records(run)
    assert [s["step"] for s in steps] == list(range(1, 21))
    return steps


@pytest.mark.parametrize(("heads", "layout"), FP32)
def test_fp32_equals_one_process(workspace: Path, heads: str, layout: str) -> None:
    one, many = curve(workspace, heads, "fp32", "one"), curve(workspace, heads, "fp32", layout)
    assert one[-1]["loss"] < 0.95 * one[0]["loss"], "the contract asks for a falling loss"
    targets = [step["target_tokens"] for step in one]
    assert targets == [step["target_tokens"] for step in many]
    assert len(set(targets)) > 5, "uneven documents and padding make the number of targets vary"
    assert max(targets) < 512
    harness.assert_same_curve(one, many)
    worst = [harness.worst_difference(one, many, key) for key in ("loss", "grad_norm")]
    print(f"{heads} {layout}: worst relative difference of the loss {worst[0]:.1e}, of the norm {worst[1]:.1e}")


@pytest.mark.parametrize(("heads", "precision", "layout"), BF16)
def test_bf16_follows_one_process(workspace: Path, heads: str, precision: str, layout: str) -> None:
    one, many = curve(workspace, heads, precision, "one"), curve(workspace, heads, precision, layout)
    first, last = (abs(one[step]["loss"] - many[step]["loss"]) / one[step]["loss"] for step in (0, -1))
    print(f"{heads} {precision} {layout}: relative difference of the loss {first:.1e} at step 1, {last:.1e} at step 20")
    assert first <= 2e-3
    assert last <= 5e-3
