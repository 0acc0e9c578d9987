"""The curve tests notice: each neuron lowering broken on purpose fails the comparison that the sound one passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.distributed.bench import reference, train
from tests.distributed.contract import compare
from tests.neuron.library import CURVES, DOUBLE, over_gloo
from tests.ranks import Outcomes

pytestmark = pytest.mark.timeout(1800)  # the first test waits for all the training

STEPS = 3
CASES = {
    "columns_reduce_in_fp32_under_bf16": ("tp2-padded", "bf16_mixed", "gradients"),
    "copies_of_heads_not_added": ("tp4", "fp32", "gradients"),
    "copies_of_heads_all_counted_in_the_norm": ("tp4", "fp32", "norm"),
    "padding_gets_gradients": ("tp2-padded", "fp32", "norm"),
    "norms_not_summed_over_the_sequence": ("tp2-sp", "fp32", "gradients"),
    "norms_counted_by_every_rank": ("tp4-sp", "fp32", "norm"),
    "mean_of_zero_not_compensated": ("dp2-zero1", "fp32", "norm"),
    "masters_not_rounded_into_the_model": ("dp2-zero1", "fp32", "initial parameters differ"),
    "norm_and_loss_of_one_rank": ("dp2-zero1", "fp32", "ranks report different curves"),
    "tied_head_counted_twice_in_the_norm": ("pp2", "fp32", "norm"),
    "tied_gradients_not_added": ("pp2", "fp32", "gradients"),
    "pipeline_weight_not_multiplied_by_microbatches": ("pp2", "fp32", "loss"),
    "mask_of_the_first_share": ("cp2-zero1-padded", "fp32", "loss"),
    "initialised_by_local_rows": ("tp2-padded", "fp32", "initial parameters differ"),
}
"""By fault: the smallest layout that has the piece, its precision, and what the comparison has to complain about."""
SOUND = list(dict.fromkeys((layout, precision) for layout, precision, _ in CASES.values()))
ON_DOUBLE = ["copies_of_heads_not_added", "norms_not_summed_over_the_sequence", "mean_of_zero_not_compensated"]
"""Tried in CI too. (The double does not have NxD's defects.)"""


def _run(directory: Path, source: Path, faults: list[str]) -> Outcomes:
    """Each layout as it is, and each fault: three steps, the warm-up's first."""
    cases = [(*CASES[fault][:2], fault) for fault in faults]
    return train(directory, [*(case[:2] for case in cases), *cases], STEPS, CURVES, over_gloo(source))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def references(directory: Path) -> Outcomes:
    return train(directory, [reference(*case) for case in SOUND], STEPS)


@pytest.fixture(scope="module")
def on_source(selected: list[dict[str, str]], directory: Path, references: Outcomes, nxd_source: Path) -> Outcomes:
    return _run(directory, nxd_source, [params["fault"] for params in selected])


@pytest.fixture(scope="module")
def on_double(directory: Path, references: Outcomes) -> Outcomes:
    return _run(directory, DOUBLE, ON_DOUBLE)


def _assert_noticed(references: Outcomes, outcomes: Outcomes, fault: str) -> None:
    layout, precision, complaint = CASES[fault]
    (one,) = references[reference(layout, precision)]
    compare(one, outcomes[layout, precision], precision).assert_within()
    broken = compare(one, outcomes[layout, precision, fault], precision)
    print(f"{fault}: loss {broken.loss:.1e}, gradient norm {broken.norm:.1e}, gradients {broken.gradients:.1e}")
    with pytest.raises(AssertionError, match=complaint):
        broken.assert_within()


def test_every_fault_is_tried() -> None:
    text = (Path(__file__).parent / "faults.py").read_text()
    assert set(CASES) == set(re.findall(r"@fault\ndef (\w+)", text))


@pytest.mark.nxd
@pytest.mark.parametrize("fault", CASES)
def test_a_broken_lowering_is_noticed(references: Outcomes, on_source: Outcomes, fault: str) -> None:
    _assert_noticed(references, on_source, fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ON_DOUBLE)
def test_a_broken_lowering_is_noticed_on_the_double(references: Outcomes, on_double: Outcomes, fault: str) -> None:
    _assert_noticed(references, on_double, fault)
