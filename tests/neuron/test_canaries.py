"""NxD's silent defects still exist: each test states one by its own figure, and fails when NxD has mended it.

S: results are silently wrong. P: a trap. Figures come from dense arithmetic beside the measurement, never from NxD.
While a canary passes, its workaround in trainer/backends/neuron is needed.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.neuron.library import over_gloo
from tests.ranks import Outcomes, RanksFailed, Task, attempt

pytestmark = pytest.mark.nxd
LAYERS, TRAINING = "tests.neuron.canary_layers", "tests.neuron.canary_training"
TASKS = {
    "S1": Task(f"{LAYERS}:input_gradient", 2, {"mended": False}),
    "S1 mended": Task(f"{LAYERS}:input_gradient", 2, {"mended": True}),
    "S2": Task(f"{TRAINING}:resumed_masters", 2),
    "S3": Task(f"{LAYERS}:fused_marks", 2),
    "S4": Task(f"{TRAINING}:clipping_limit", 2),
    "S5": Task(f"{LAYERS}:smoothed_loss", 2, {"smoothing": 0.1}),
    "S5 none": Task(f"{LAYERS}:smoothed_loss", 2, {"smoothing": 0.0}),
    "S6": Task(f"{LAYERS}:adapter_gradient", 2),
    "S7": Task(f"{TRAINING}:context_gradient", 2, {"zero": False}),
    "S7 zero": Task(f"{TRAINING}:context_gradient", 2, {"zero": True}),
    "S8": Task(f"{TRAINING}:manual_stage", 2),
    "P1": Task(f"{LAYERS}:strided_groups", 1),
    "P2": Task(f"{LAYERS}:source_rank", 4),
    "P3": Task(f"{LAYERS}:query_bias", 2),
    "P4": Task(f"{TRAINING}:drawn_on_meta", 2),
    "P8": Task(f"{TRAINING}:evaluation", 2, {"virtual": 2}, seconds=30),
    "P8 plain": Task(f"{TRAINING}:evaluation", 2, {"virtual": 1}),
}


@pytest.fixture(scope="module")
def outcomes(nxd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All measurements, from one import of NxD."""
    return attempt(TASKS, tmp_path_factory.mktemp("canaries"), over_gloo(nxd_source))


def mended(name: str) -> str:
    """What a canary that no longer sees its defect says."""
    return f"NxD has mended {name}: our workaround in trainer/backends/neuron can go"


def test_s1_input_gradients_of_bf16_layers_are_not_reduced(outcomes: Outcomes) -> None:
    for plain, workaround in zip(outcomes["S1"], outcomes["S1 mended"], strict=True):
        assert plain["apart"]
        assert plain["local"], mended("S1")
        assert not plain["total"], mended("S1")
        assert workaround["total"], "reduce_dtype=dtype no longer reduces"


def test_s2_masters_are_those_from_before_the_resume(outcomes: Outcomes) -> None:
    for rank in outcomes["S2"]:
        assert rank["together"] == {"loaded": True, "kept": False, "went_back": True}, mended("S2")
        assert rank["apart"] == {"loaded": True, "kept": True, "went_back": False}


def test_s3_a_fused_qkv_weight_is_counted_by_half(outcomes: Outcomes) -> None:
    for rank in outcomes["S3"]:
        assert not rank["fused"], mended("S3")
        assert rank["apart"]
        assert math.isclose(rank["norm"], math.sqrt(0.5), rel_tol=1e-6), mended("S3")
        assert math.isclose(rank["norm_when_marked"], 1.0, rel_tol=1e-6)


def test_s4_the_clipping_limit_is_not_passed_on(outcomes: Outcomes) -> None:
    for rank in outcomes["S4"]:
        assert rank["configured"] == 1.0, mended("S4")
        assert rank["constructed"] == 0.25


def test_s5_label_smoothing_looks_at_one_slice_of_the_vocabulary(outcomes: Outcomes) -> None:
    smoothed = outcomes["S5"]
    for rank in smoothed:
        assert rank["from_defect"] < 1e-5, mended("S5")
        assert rank["from_right"] > 1e-2, mended("S5")
    assert smoothed[0]["loss"] != smoothed[1]["loss"], mended("S5")
    assert all(rank["from_right"] < 1e-5 for rank in outcomes["S5 none"])


def test_s6_a_replicated_adapter_learns_from_its_own_positions_only(outcomes: Outcomes) -> None:
    for rank in outcomes["S6"]:
        assert not rank["flag"], mended("S6")
        assert rank["from_own_positions"] < 1e-5, mended("S6")
        assert rank["from_all_positions"] > 1e-1, mended("S6")


def test_s7_context_parallel_gradients_are_too_large_by_its_size(outcomes: Outcomes) -> None:
    # The mean of 1 and 2, twice: summed once more over a group that contains the same ranks.
    assert outcomes["S7"] == [{"least": 3.0, "most": 3.0}] * 2, mended("S7")
    assert outcomes["S7 zero"] == [{"least": 1.5, "most": 1.5}] * 2


def test_s8_a_stage_cut_by_hand_has_no_state(outcomes: Outcomes) -> None:
    assert outcomes["S8"] == [{"parameters": 2, "state": 0}] * 2, mended("S8")


def test_p1_groups_of_four_are_strided_and_pipelines_of_them_fail(outcomes: Outcomes) -> None:
    [found] = outcomes["P1"]
    assert found["first"] == [0, 8, 16, 24], mended("P1")
    assert "shape" in found["error"], mended("P1")


def test_p2_the_source_rank_of_four_is_the_rank_itself(outcomes: Outcomes) -> None:
    assert [rank["source"] for rank in outcomes["P2"]] == [0, 1, 2, 3], mended("P2")


def test_p3_grouped_query_attention_takes_no_bias(outcomes: Outcomes) -> None:
    assert all(rank["error"] for rank in outcomes["P3"]), mended("P3")


def test_p4_one_seed_draws_the_same_shard_everywhere(outcomes: Outcomes) -> None:
    for rank in outcomes["P4"]:
        assert rank["spread"] > 0.5
        assert rank["same"], mended("P4")


def test_p8_evaluation_of_an_interleaved_pipeline_hangs(outcomes: Outcomes) -> None:
    [plain, _] = outcomes["P8 plain"]
    assert plain["trained"] == pytest.approx(plain["evaluated"], rel=1e-6)
    outcome = outcomes.found["P8"]
    assert isinstance(outcome, RanksFailed), mended("P8")
    assert "hung" in str(outcome)
    assert "trained" in str(outcome)
    assert "run_eval" in str(outcome)
