"""The fake backend counts what the closed forms say, and scales few microbatches to many exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.lowering.recompute import recomputing
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.parallel import ParallelConfig
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.optim.adamw import MixedPrecisionAdamW
from trainer.parallel.mesh import Mesh
from trainer.rehearsal import rehearse as rehearsal
from trainer.rehearsal.collectives import Key, Traffic
from trainer.rehearsal.rehearse import Piece, RankReport, rank_classes, rehearse, rehearse_rank
from trainer.rehearsal.report import describe
from trainer.rehearsal.scaling import counts

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
        make_optimizer=lambda parameters, rules, mode, counted: MixedPrecisionAdamW(
            parameters, rules, OptimConfig(), mode, counted
        ),
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


def lowered(mesh: Mesh, **parallel: Any) -> Piece:
    """A piece of this layout, which recomputes as the layout says."""
    layout = ParallelConfig(tp=mesh.tp, pp=mesh.pp, cp=mesh.cp, **parallel)
    stages = (range(0, 2), range(2, 3)) if mesh.pp == 2 else ()
    return replace(
        piece("bf16_mixed"),
        make_backend=lambda mesh, make_optimizer: NativeBackend(mesh, make_optimizer, 60.0, layout, stages),
        recomputing=recomputing,
    )


@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_flops(every: int) -> None:
    """Full: a layer's forward pass but for its last product, of which the backward pass needs the arguments only.
    Selective: the output projection alone, whose result is the one product that is not kept.
    """
    layers, square = -(-MODEL.layers // every), 2 * BATCH * (4 // TP) * SEQ * SEQ * 16
    kernel = MODEL.layers * square
    down, output = 2 * TOKENS * 64 * 96 // TP, 2 * TOKENS * 64 * 64 // TP
    full = 2 * TOKENS * LAYER // TP + 2 * square - down
    for mode, extra in (("none", 0), ("selective", output), ("full", full)):
        flops = rehearse_rank(lowered(MESH, recompute=mode, recompute_every=every), MESH).totals.flops
        assert flops.recomputed == MICROBATCHES * (kernel + layers * extra), mode
        assert flops.matmul == MICROBATCHES * 6 * LOCAL_MATRICES * TOKENS


def test_sequence_parallelism_gathers_and_scatters_where_sums_were() -> None:
    """Korthikanti et al. 2022 (arXiv:2205.05198), section 4.2.2: the block's input once more in the backward pass."""
    report = rehearse_rank(lowered(MESH, sp=True), MESH)
    seams, size = 4 * MODEL.layers + 2, TOKENS * 64 * 2
    traffic = report.totals.traffic
    gathered = MICROBATCHES * (seams + 2 * MODEL.layers)
    assert traffic[Key("forward_backward", "tp", "all_gather")] == Traffic(gathered, gathered * size)
    scattered = MICROBATCHES * seams
    assert traffic[Key("forward_backward", "tp", "reduce_scatter")] == Traffic(scattered, scattered * size)
    assert traffic[Key("update", "tp", "all_reduce")] == Traffic(2, 4 * 7 * 64 + 4)


def test_sequence_parallelism_and_recomputation_save_memory() -> None:
    def peak(**parallel: Any) -> int:
        mesh = Mesh(0, tp=2)
        return rehearse_rank(lowered(mesh, **parallel), mesh).activations

    whole, cut = peak(), peak(sp=True)
    selective, full = peak(sp=True, recompute="selective"), peak(sp=True, recompute="full")
    assert whole > 1.2 * cut
    assert cut > selective > full


def test_a_pipeline_fills_and_then_grows_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the ranks send one another is a microbatch's activations and their gradient."""
    for rank in (0, 3):
        mesh = Mesh(rank, tp=1, dp=2, pp=2)
        for options in ({}, {"zero": 1}):
            peaks = []
            for count in (3, 4, 6):
                monkeypatch.setattr(rehearsal, "counts", lambda *_, count=count: (count,))
                report = rehearse_rank(lowered(mesh, **options), mesh)
                peaks.append(report.totals.peaks)
                sent = report.totals.traffic[Key("forward_backward", "pp", "send")]
                assert sent == Traffic(count, count * TOKENS * 64 * 2)
            for fewer, more in pairwise(peaks):
                growth = more["forward_backward"] - fewer["forward_backward"]
                assert 0 <= growth <= 16, "each microbatch's loss, a number"
                assert more["update"] == fewer["update"]


def test_context_parallelism_gathers_keys_and_values() -> None:
    """[2, batch, key-value heads, seq, head size] of BF16 a layer, forward; its gradient scattered, backward."""
    mesh = Mesh(1, cp=2)
    traffic = rehearse_rank(lowered(mesh), mesh).totals.traffic
    count, size = MICROBATCHES * MODEL.layers, 2 * BATCH * 2 * SEQ * 16 * 2
    assert traffic[Key("forward_backward", "cp", "all_gather")] == Traffic(count, count * size)
    assert traffic[Key("forward_backward", "cp", "reduce_scatter")] == Traffic(count, count * size)


def test_zero_three_gathers_for_every_microbatch() -> None:
    """Rajbhandari et al. 2020 (arXiv:1910.02054), section 7: forward, backward, and the gradients' reduction."""
    mesh = Mesh(0, dp=2)
    once = rehearse_rank(lowered(mesh, zero=1), mesh).totals.traffic
    often = rehearse_rank(lowered(mesh, zero=3), mesh).totals.traffic
    groups = MODEL.layers + 1
    gather, scatter = (Key("forward_backward", "dp", kind) for kind in ("all_gather", "reduce_scatter"))
    assert (once[gather].count, once[scatter].count) == (groups, groups)
    # The last group to go forward is the first to go backward, and the root is not given up between.
    assert often[scatter].count == MICROBATCHES * groups
    assert MICROBATCHES * (2 * MODEL.layers - 1) <= often[gather].count <= MICROBATCHES * 2 * groups


def test_recomputation_is_told_apart() -> None:
    again = rehearse_rank(replace(piece(), recomputing=lambda: True), MESH).totals.flops
    plain = rehearsed("fp32").totals.flops
    assert (again.model, again.recomputed) == (0, plain.model + plain.recomputed)


@pytest.mark.parametrize(
    ("microbatches", "stages", "virtual", "expected"),
    [
        (1, 1, 1, (1,)),
        (3, 1, 1, (3,)),
        (4, 1, 1, (2, 3)),
        (5, 4, 1, (5,)),
        (99, 4, 1, (4, 5)),
        (99, 4, 2, (8, 12)),
        (30, 8, 2, (30,)),
        (44, 10, 2, (22, 33)),
    ],
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


def unplanned() -> CausalLM:
    """A model with a parameter that the plan forgets."""
    model = CausalLM(MODEL)
    model.model.register_parameter("extra", torch.nn.Parameter(torch.zeros(2)))
    return model


def test_ranks_are_rehearsed_side_by_side_and_a_failure_is_raised() -> None:
    small = replace(MODEL, layers=1)
    reports = rehearse(piece(model=small), [replace(MESH, rank=rank) for rank in (0, 3, 5)])
    assert [report.mesh.rank for report in reports] == [0, 3, 5]
    assert len({report.totals.flops for report in reports}) == 1
    text = "\n".join(describe(reports[1]))
    assert "rank 3 of 6 (tp 1 of 2, dp 1 of 3)" in text
    assert "(estimated)" in text
    broken = replace(piece(), precision="fp9", build=unplanned)
    with pytest.raises(ConfigError) as raised:
        rehearse(broken, [MESH, MESH])
    assert [problem.key for problem in raised.value.problems] == ["model.extra"]
    assert not torch.distributed.is_initialized()
