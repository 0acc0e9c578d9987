"""NxD's silent defects still exist: each test states one by its own figure, and fails when NxD has mended it.

By the names of trainer/backends/neuron/defects.py. Figures come from dense arithmetic beside the measurement, never
from NxD. While a canary passes, its workaround in trainer/backends/neuron is needed.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.neuron.library import over_gloo
from tests.ranks import Outcomes, RanksFailed, Task, attempt
from trainer.backends.neuron.defects import DEFECTS

pytestmark = pytest.mark.nxd
LAYERS, TRAINING = "tests.neuron.canary_layers", "tests.neuron.canary_training"
TASKS = {
    "input_gradient_not_reduced": Task(f"{LAYERS}:input_gradient", 2, {"mended": False}),
    "input_gradient_not_reduced, worked around": Task(f"{LAYERS}:input_gradient", 2, {"mended": True}),
    "old_masters_over_loaded_weights": Task(f"{TRAINING}:resumed_masters", 2),
    "fused_weight_unmarked": Task(f"{LAYERS}:fused_marks", 2),
    "clipping_norm_ignored": Task(f"{TRAINING}:clipping_limit", 2),
    "smoothed_loss_wrong": Task(f"{LAYERS}:smoothed_loss", 2, {"smoothing": 0.1}),
    "smoothed_loss_wrong, without": Task(f"{LAYERS}:smoothed_loss", 2, {"smoothing": 0.0}),
    "adapter_gradient_partial": Task(f"{LAYERS}:adapter_gradient", 2),
    "context_gradient_added_twice": Task(f"{TRAINING}:context_gradient", 2, {"zero": False}),
    "context_gradient_added_twice, with ZeRO-1": Task(f"{TRAINING}:context_gradient", 2, {"zero": True}),
    "manual_stage_stateless": Task(f"{TRAINING}:manual_stage", 2),
    "strided_groups_of_four": Task(f"{LAYERS}:strided_groups", 1),
    "source_rank_of_four": Task(f"{LAYERS}:source_rank", 4),
    "grouped_query_bias_raises": Task(f"{LAYERS}:query_bias", 2),
    "same_draws_on_every_rank": Task(f"{TRAINING}:drawn_on_meta", 2),
    "interleaved_evaluation_hangs": Task(f"{TRAINING}:evaluation", 2, {"virtual": 2}, seconds=30),
    "interleaved_evaluation_hangs, one stage a rank": Task(f"{TRAINING}:evaluation", 2, {"virtual": 1}),
}


@pytest.fixture(scope="module")
def outcomes(nxd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All measurements, from one import of NxD."""
    return attempt(TASKS, tmp_path_factory.mktemp("canaries"), over_gloo(nxd_source))


def mended(name: str) -> str:
    """What a canary that no longer sees its defect says."""
    return f"NxD has mended {name}; what can go: {DEFECTS[name].here}"


def test_input_gradients_of_bf16_layers_are_not_reduced(outcomes: Outcomes) -> None:
    for plain, workaround in zip(
        outcomes["input_gradient_not_reduced"], outcomes["input_gradient_not_reduced, worked around"], strict=True
    ):
        assert plain["apart"]
        assert plain["local"], mended("input_gradient_not_reduced")
        assert not plain["total"], mended("input_gradient_not_reduced")
        assert workaround["total"], "reduce_dtype=dtype no longer reduces"


def test_masters_are_those_from_before_the_resume(outcomes: Outcomes) -> None:
    for rank in outcomes["old_masters_over_loaded_weights"]:
        assert rank["together"] == {"loaded": True, "kept": False, "went_back": True}, mended(
            "old_masters_over_loaded_weights"
        )
        assert rank["apart"] == {"loaded": True, "kept": True, "went_back": False}


def test_a_fused_qkv_weight_is_counted_by_half(outcomes: Outcomes) -> None:
    for rank in outcomes["fused_weight_unmarked"]:
        assert not rank["fused"], mended("fused_weight_unmarked")
        assert rank["apart"]
        assert math.isclose(rank["norm"], math.sqrt(0.5), rel_tol=1e-6), mended("fused_weight_unmarked")
        assert math.isclose(rank["norm_when_marked"], 1.0, rel_tol=1e-6)


def test_the_clipping_limit_is_not_passed_on(outcomes: Outcomes) -> None:
    for rank in outcomes["clipping_norm_ignored"]:
        assert rank["configured"] == 1.0, mended("clipping_norm_ignored")
        assert rank["constructed"] == 0.25


def test_label_smoothing_looks_at_one_slice_of_the_vocabulary(outcomes: Outcomes) -> None:
    smoothed = outcomes["smoothed_loss_wrong"]
    for rank in smoothed:
        assert rank["from_defect"] < 1e-5, mended("smoothed_loss_wrong")
        assert rank["from_right"] > 1e-2, mended("smoothed_loss_wrong")
    assert smoothed[0]["loss"] != smoothed[1]["loss"], mended("smoothed_loss_wrong")
    assert all(rank["from_right"] < 1e-5 for rank in outcomes["smoothed_loss_wrong, without"])


def test_a_replicated_adapter_learns_from_its_own_positions_only(outcomes: Outcomes) -> None:
    for rank in outcomes["adapter_gradient_partial"]:
        assert not rank["flag"], mended("adapter_gradient_partial")
        assert rank["from_own_positions"] < 1e-5, mended("adapter_gradient_partial")
        assert rank["from_all_positions"] > 1e-1, mended("adapter_gradient_partial")


def test_context_parallel_gradients_are_too_large_by_its_size(outcomes: Outcomes) -> None:
    # The mean of 1 and 2, twice: summed once more over a group that contains the same ranks.
    assert outcomes["context_gradient_added_twice"] == [{"least": 3.0, "most": 3.0}] * 2, mended(
        "context_gradient_added_twice"
    )
    assert outcomes["context_gradient_added_twice, with ZeRO-1"] == [{"least": 1.5, "most": 1.5}] * 2


def test_a_stage_cut_by_hand_has_no_state(outcomes: Outcomes) -> None:
    assert outcomes["manual_stage_stateless"] == [{"parameters": 2, "state": 0}] * 2, mended("manual_stage_stateless")


def test_groups_of_four_are_strided_and_pipelines_of_them_fail(outcomes: Outcomes) -> None:
    [found] = outcomes["strided_groups_of_four"]
    assert found["first"] == [0, 8, 16, 24], mended("strided_groups_of_four")
    assert "shape" in found["error"], mended("strided_groups_of_four")


def test_the_source_rank_of_four_is_the_rank_itself(outcomes: Outcomes) -> None:
    assert [rank["source"] for rank in outcomes["source_rank_of_four"]] == [0, 1, 2, 3], mended("source_rank_of_four")


def test_grouped_query_attention_takes_no_bias(outcomes: Outcomes) -> None:
    assert all(rank["error"] for rank in outcomes["grouped_query_bias_raises"]), mended("grouped_query_bias_raises")


def test_one_seed_draws_the_same_shard_everywhere(outcomes: Outcomes) -> None:
    for rank in outcomes["same_draws_on_every_rank"]:
        assert rank["spread"] > 0.5
        assert rank["same"], mended("same_draws_on_every_rank")


def test_evaluation_of_an_interleaved_pipeline_hangs(outcomes: Outcomes) -> None:
    [plain, _] = outcomes["interleaved_evaluation_hangs, one stage a rank"]
    assert plain["trained"] == pytest.approx(plain["evaluated"], rel=1e-6)
    outcome = outcomes.found["interleaved_evaluation_hangs"]
    assert isinstance(outcome, RanksFailed), mended("interleaved_evaluation_hangs")
    assert "hung" in str(outcome)
    assert "trained" in str(outcome)
    assert "run_eval" in str(outcome)
