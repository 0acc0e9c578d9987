"""The fake backend counts what the closed forms say, and scales few microbatches to many exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from trainer.backends.fake import rehearsal
from trainer.backends.fake.collectives import Key, Traffic
from trainer.backends.fake.rehearsal import Piece, RankReport, rank_classes, rehearse, rehearse_rank
from trainer.backends.fake.report import describe
from trainer.backends.fake.scaling import counts
from trainer.backends.native.backend import NativeBackend
from trainer.config import ModelConfig, OptimConfig
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.optim.mixed_precision import MixedPrecisionAdamW
from trainer.parallel.mesh import Mesh

MODEL = ModelConfig(hidden=64, layers=3, heads=4, kv_heads=2, mlp=96, vocab=512, loss_chunk_tokens=40)
BATCH, SEQ, MICROBATCHES, TP, DP = 2, 32, 7, 2, 3
TOKENS, CHUNKS = BATCH * SEQ, 2  # 64 tokens of loss in chunks of 40
MESH = Mesh(2, tp=TP, dp=DP)
"""A rank whose copies of the norms are those that count: its flat gradient has no second part."""

LAYER = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96
"""Matrix elements of a layer: q, k and v, o, and the feed-forward."""
LOCAL_MATRICES = (3 * LAYER + 512 * 64) // TP
LOCAL = LOCAL_MATRICES + 512 * 64 // TP + 7 * 64
"""Parameters of a rank: the embedding too, and norms, which are not cut."""


def piece(precision: str = "fp32", microbatches: int = MICROBATCHES, model: ModelConfig = MODEL) -> Piece:
    return Piece(
        build=lambda: CausalLM(model),
        plan=sharding_plan(model),
        precision=precision,
        make_backend=lambda mesh, make_optimizer: NativeBackend(mesh, make_optimizer, 60.0),
        make_optimizer=lambda parameters, mode, counted: MixedPrecisionAdamW(parameters, OptimConfig(), mode, counted),
        samples=BATCH,
        seq_len=SEQ,
        microbatches=microbatches,
    )


@cache
def rehearsed(precision: str) -> RankReport:
    return rehearse_rank(piece(precision), MESH)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16_mixed", 2)])
def test_collectives_are_those_of_the_layout(precision: str, size: int) -> None:
    """Two sums a layer each way (Shoeybi et al. 2019, section 3), the embedding's, the head's gradient, and the loss's
    three numbers a token in FP32; once a step the gradients in whole rows of 16,384, the loss and the squared norm.
    """
    report = rehearsed(precision)
    activations = MICROBATCHES * (4 * MODEL.layers + 2)
    loss_bytes = MICROBATCHES * TOKENS * 3 * 4
    gradients = -(-LOCAL // 16384) * 16384 * 4
    assert report.totals.traffic == {
        Key("forward_backward", "tp", "all_reduce"): Traffic(
            activations + MICROBATCHES * 2 * CHUNKS, activations * TOKENS * 64 * size + loss_bytes
        ),
        Key("update", "dp", "all_reduce"): Traffic(2, gradients + 4),
        Key("update", "tp", "all_reduce"): Traffic(1, 4),
    }
    assert report.simulated == (2, 3)
    assert report.steady


def test_flops_are_six_a_matrix_element_and_token_and_twelve_for_attention() -> None:
    """Kaplan et al. 2020 (arXiv:2001.08361), section 2.1; PaLM (arXiv:2204.02311), appendix B, over the full square."""
    flops = rehearsed("fp32").totals.flops
    assert flops.matmul == MICROBATCHES * 6 * LOCAL_MATRICES * TOKENS
    square = MICROBATCHES * MODEL.layers * BATCH * (4 // TP) * SEQ * SEQ * 16
    assert flops.attention == 12 * square
    assert flops.recomputed == 2 * square
    assert flops.model_causal == flops.matmul + 6 * square


@pytest.mark.parametrize(
    ("precision", "weight", "gradient", "optimizer"), [("fp32", 4, 4, 8), ("bf16_mixed", 2, 4, 12), ("bf16", 2, 2, 4)]
)
def test_static_memory_is_that_of_the_precision_mode(
    precision: str, weight: int, gradient: int, optimizer: int
) -> None:
    report = rehearsed(precision)
    assert report.parameters == LOCAL
    assert report.static.parameters == weight * LOCAL
    assert report.static.gradients == gradient * -(-LOCAL // 16384) * 16384
    steps = 4 * (3 * 9 + 3)  # a count of updates for each parameter
    assert report.static.optimizer == optimizer * LOCAL
    assert 0 <= report.static.other - steps < 100, "rotary frequencies and a few scalars"


def test_scaling_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = rehearsed("fp32")
    monkeypatch.setattr(rehearsal, "counts", lambda microbatches, stages, virtual: (microbatches,))
    whole = rehearse_rank(piece(), MESH)
    assert whole.simulated == (MICROBATCHES,)
    assert scaled.simulated == (2, 3)
    assert scaled.totals == whole.totals


def test_recomputation_is_told_apart() -> None:
    again = rehearse_rank(replace(piece(), recomputing=lambda: True), MESH).totals.flops
    plain = rehearsed("fp32").totals.flops
    assert (again.model, again.recomputed) == (0, plain.model + plain.recomputed)


@pytest.mark.parametrize(
    ("microbatches", "stages", "virtual", "expected"),
    [(1, 1, 1, (1,)), (3, 1, 1, (3,)), (4, 1, 1, (2, 3)), (5, 4, 1, (5,)), (99, 4, 1, (4, 5)), (99, 4, 2, (8, 12))],
)
def test_few_microbatches_are_simulated(
    microbatches: int, stages: int, virtual: int, expected: tuple[int, ...]
) -> None:
    assert counts(microbatches, stages, virtual) == expected


def test_rank_classes_are_the_kinds_of_stages() -> None:
    mesh = Mesh(0, tp=2, dp=4, pp=4)
    assert [m.rank for m in rank_classes(mesh, [24, 24, 24, 23])] == [0, 8, 24]
    assert [m.rank for m in rank_classes(mesh, [24, 24, 23, 24])] == [0, 8, 16, 24]
    assert [m.rank for m in rank_classes(Mesh(0, dp=4), [3])] == [0]
    assert [m.rank for m in rank_classes(mesh, [12, 12, 12, 12, 12, 12, 12, 11])] == [0, 8, 24]


def test_ranks_are_rehearsed_side_by_side_and_a_failure_is_raised() -> None:
    small = replace(MODEL, layers=1)
    reports = rehearse(piece(model=small), [replace(MESH, rank=rank) for rank in (0, 3, 5)])
    assert [report.mesh.rank for report in reports] == [0, 3, 5]
    assert len({report.totals.flops for report in reports}) == 1
    text = "\n".join(describe(reports[1]))
    assert "rank 3 of 6 (tp 1 of 2, dp 1 of 3)" in text
    assert "(estimated)" in text
    broken = replace(piece(), precision="fp9", build=lambda: torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError) as raised:
        rehearse(broken, [MESH, MESH])
    assert [problem.key for problem in raised.value.problems] == ["weight", "bias"]
    assert not torch.distributed.is_initialized()
