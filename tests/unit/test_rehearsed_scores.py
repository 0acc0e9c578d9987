"""What attention without a kernel takes on trn1, by arithmetic written out, and against what autograd takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes.rehearse import scores_of
from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Task, run
from tests.recipes.test_full_size import configured
from trainer.config.schema import Config
from trainer.parallel.mesh import Mesh
from trainer.rehearsal.scores import KEPT, MASK, STRIP, SUMS, WORKING, Scores, Strips, in_flight
from trainer.rehearsal.verdict import Verdict
from trainer.rules.derived import derive
from trainer.rules.quantities import pretended
from trainer.run.world import World

OF_A_LAYER = 4 * 512**2
"""DeepSeek 7B: 32 heads over TP 8, one sample a microbatch; samples of 512, which are one block."""


def with_documents(recipe: str, recompute: str = "none", every: int = 1, seq_len: int = 512) -> Config:
    config = configured(recipe)
    parallel = replace(config.parallel, recompute=recompute, recompute_every=every)
    return replace(config, data=replace(config.data, document_mask=True, seq_len=seq_len), parallel=parallel)


def found(config: Config, stage: int = 0) -> Any:
    p, derived = config.parallel, derive(config, pretended(config, World(cpu_bf16=True)))
    make = scores_of(config, derived)
    assert make is not None
    ranks = p.tp * derived.dp
    return make(Mesh(stage * ranks, tp=p.tp, dp=derived.dp, pp=p.pp))


@pytest.mark.parametrize(("recompute", "every", "layers"), [("none", 1, 30), ("full", 1, 1), ("full", 2, 15 + 1)])
def test_deepseek_7b_by_hand(recompute: str, every: int, layers: int) -> None:
    """30 layers; recomputed ones have scores one at a time."""
    scores = found(with_documents("deepseek7b", recompute, every))
    assert isinstance(scores, Scores)
    assert scores.least == OF_A_LAYER * (2 * layers + 2)
    assert scores.most == OF_A_LAYER * (6 * layers + 6) + 512**2 * layers


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_deepseek_7b_block_by_block(recompute: str) -> None:
    """Samples of 4,096: a block's scores, 4 heads x 512 x 4,096, and sums of 4 heads x 4,096 x 128, in any layer."""
    strips = found(with_documents("deepseek7b", recompute, seq_len=4096))
    assert isinstance(strips, Strips)
    assert strips.least == 2 * 4 * 512 * 4096
    assert strips.most == 20 * 4 * 512 * 4096 + 32 * 4 * 4096 * 128
    for words in (
        "0.02 to 0.22 GiB = 1 samples x (4 heads x 512 x 4,096 x 2 to 20",
        "65,536 bytes a layer",
        "document_mask",
    ):
        assert words in str(strips)


def test_the_verdict_has_them() -> None:
    """9.62 GiB without. All of the scores were 3.88 to 12.09 more of 14, which could not be told; a block's fit."""
    plain = Verdict("bf16_mixed", 864_014_336, 32, 4_679_829_532)
    assert "= 9.62 GiB" in str(plain)
    assert plain.fits
    fits = replace(plain, scores=found(with_documents("deepseek7b", seq_len=4096)))
    assert fits.fits is True
    assert "+ scores 0.02 to 0.22 = 9.63 to 9.83 GiB, of 14.0" in str(fits)
    whole = Scores(4, 4096, 4096, 1, 30, "bf16_mixed", "data.document_mask")
    unsure = replace(plain, scores=whole)
    assert unsure.fits is None
    assert str(unsure).startswith("CANNOT BE TOLD (estimated)")
    assert "+ scores 3.88 to 12.09 = 13.49 to 21.71 GiB, of 14.0" in str(unsure)
    assert str(replace(unsure, activations=2 * plain.activations)).startswith("DOES NOT FIT")
    for words in (
        "3.88 to 12.09 GiB = 1 samples x 4 heads x 4,096 x 4,096 x (2 to 6 kept x 30 layers",
        "document_mask",
    ):
        assert words in str(whole)


def test_the_flash_kernel_keeps_none() -> None:
    config = configured("deepseek7b")
    assert scores_of(config, derive(config, pretended(config, World(cpu_bf16=True)))) is None


def test_a_pipeline_keeps_those_of_microbatches_in_flight() -> None:
    """DeepSeek 67B over 4 stages of 24, 24, 24 and 23 layers; 64 heads over TP 32."""
    config = with_documents("deepseek67b")
    assert [found(config, stage).layers for stage in range(4)] == [4 * 24, 3 * 24, 2 * 24, 23]
    assert found(config, 3).least == 2 * 512**2 * (2 * 23 + 2)


@pytest.mark.parametrize(
    ("pp", "stage", "chunks", "microbatches", "expected"),
    [(1, 0, 1, 8, 1), (4, 0, 1, 2, 2), (4, 1, 1, 8, 3), (2, 0, 2, 8, 5), (2, 1, 2, 8, 3), (2, 0, 2, 2, 4)],
)
def test_in_flight(pp: int, stage: int, chunks: int, microbatches: int, expected: int) -> None:
    """Counted on paper: on two ranks of two chunks each, rank 0 runs 4 forward passes before it alternates."""
    assert in_flight(Mesh(stage, pp=pp), chunks, microbatches) == expected


@pytest.mark.slow
def test_autograd_keeps_the_most(tmp_path: Path) -> None:
    """Bytes a score of one head, counted as tensors come and go: with one head a layer's mask is one byte of it."""
    [measured] = run(Task("tests.neuron.attention_worker:kept"), tmp_path, over_gloo(DOUBLE))
    for mode, dtype in (("bf16_mixed", "torch.bfloat16"), ("fp32", "torch.float32")):
        kept, peak = measured[dtype]
        assert kept == pytest.approx(KEPT[mode][1] + MASK, rel=0.02)
        assert peak == pytest.approx(KEPT[mode][1] + MASK + WORKING[mode][1], rel=0.1)


@pytest.mark.slow
def test_pytorch_takes_the_most_of_a_block(tmp_path: Path) -> None:
    """Bytes a score of a block in the backward pass, where one number a key is too little to count; and what a number
    more of each key takes.
    """
    [measured] = run(Task("tests.neuron.attention_worker:of_a_block"), tmp_path, over_gloo(DOUBLE))
    for mode, dtype in (("bf16_mixed", "torch.bfloat16"), ("fp32", "torch.float32")):
        score, element = measured[dtype]
        assert 0.9 * STRIP[mode][1] < score <= STRIP[mode][1]
        assert 0.8 * SUMS < element <= SUMS
