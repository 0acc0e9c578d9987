"""The matrix notices: each lowering broken on purpose fails the comparison that the sound one passes."""

from __future__ import annotations

import pytest

from tests.distributed.bench import reference, train_with_references
from tests.distributed.contract import compare
from tests.distributed.faults import FAULTS
from tests.ranks import Outcomes
from tests.selection import in_ci

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first test waits for all the training

STEPS = 3
CASES = {
    "block_left_without_sum": ("tp2-padded", "loss"),
    "block_entered_without_gradient_sum": ("tp2-padded", "norm"),
    "key_value_copies_not_added": ("tp4", "norm"),
    "padding_gets_gradients": ("tp2-padded", "loss"),
    "clipped_by_the_local_norm": ("tp2-padded", "norm"),
    "shared_norms_counted_by_every_rank": ("tp2-padded", "norm"),
    "initialised_by_local_rows": ("tp2-padded", "initial parameters differ"),
    "embedding_rows_shifted_in_evaluation": ("tp2-padded", "heldout"),
    "norms_not_summed_over_the_sequence": ("tp2-sp", "gradients"),
    "norms_of_heads_not_summed": ("tp2-qknorm", "gradients"),
    "draws_of_another_part": ("tp2-sp-dropout", "loss"),
    "row_bias_added_by_every_rank": ("tp2-rowbias", "loss"),
    "gathered_sequence_keeps_own_gradient": ("tp2-sp", "norm"),
    "key_value_gradients_counted_twice_over_cp": ("cp2-padded", "norm"),
    "gradients_summed_twice_over_cp": ("cp2-padded", "norm"),
    "document_mask_lost_under_cp": ("cp2-padded", "loss"),
    "gathered_keys_taken_for_ordered": ("cp2-padded", "loss"),
    "positions_counted_from_the_share": ("cp2-padded", "loss"),
    "loss_averaged_per_microbatch": ("dp2", "loss"),
    "last_microbatch_only": ("dp2", "norm"),
    "draws_counted_from_the_share": ("dp2-dropout", "loss"),
    "zero_gradients_averaged": ("dp2-zero1", "norm"),
    "zero_computes_with_stale_weights": ("dp2-zero1", "loss"),
    "zero_norm_of_one_shard": ("dp2-zero1", "norm"),
    "a_layer_on_two_stages": ("pp2", "loss"),
    "a_layer_on_no_stage": ("pp2", "written once"),
    "layers_of_a_stage_in_the_wrong_order": ("pp2", "loss"),
    "tied_gradients_not_added": ("pp2", "norm"),
    "tied_weight_counted_at_both_ends": ("pp2", "norm"),
    "norm_of_one_stage": ("pp2", "norm"),
    "loss_known_to_the_last_stage_only": ("pp2", "loss"),
    "stages_in_the_wrong_order": ("pp2-interleaved-padded", "loss"),
}
"""By fault: the smallest layout that has the piece, and what the comparison has to complain about."""
LAYOUTS = list(dict.fromkeys(layout for layout, _ in CASES.values()))
IN_CI = (
    "block_left_without_sum",
    "padding_gets_gradients",
    "clipped_by_the_local_norm",
    "norms_not_summed_over_the_sequence",
    "draws_of_another_part",
    "document_mask_lost_under_cp",
    "loss_averaged_per_microbatch",
    "zero_gradients_averaged",
    "tied_gradients_not_added",
    "layers_of_a_stage_in_the_wrong_order",
)
"""A fault or two of each axis; the others, and the layouts that they alone want, are long."""


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Of the tests that were selected: references, each layout as it is, and each fault; the warm-up's first steps."""
    faults = [params["fault"] for params in selected if "fault" in params]
    named = [params["layout"] for params in selected if "layout" in params]
    layouts = dict.fromkeys([*named, *(CASES[fault][0] for fault in faults)])
    cases = [*((layout, "fp32") for layout in layouts), *((CASES[fault][0], "fp32", fault) for fault in faults)]
    return train_with_references(tmp_path_factory.mktemp("faults"), cases, STEPS)


def test_every_fault_is_tried() -> None:
    assert CASES.keys() == FAULTS.keys()


@pytest.mark.parametrize("layout", in_ci(LAYOUTS, {CASES[fault][0] for fault in IN_CI}))
def test_as_it_is_the_layout_passes(outcomes: Outcomes, layout: str) -> None:
    (one,) = outcomes[reference(layout, "fp32")]
    compare(one, outcomes[layout, "fp32"], "fp32").assert_within()


@pytest.mark.parametrize("fault", in_ci(CASES, IN_CI))
def test_a_broken_lowering_is_noticed(outcomes: Outcomes, fault: str) -> None:
    layout, complaint = CASES[fault]
    (one,) = outcomes[reference(layout, "fp32")]
    broken = compare(one, outcomes[layout, "fp32", fault], "fp32")
    print(f"{fault}: loss {broken.loss:.1e}, gradient norm {broken.norm:.1e}, gradients {broken.gradients:.1e}")
    with pytest.raises(AssertionError, match=complaint):
        broken.assert_within()
