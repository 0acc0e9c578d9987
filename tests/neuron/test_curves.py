"""The neuron backend gives the native one's single-process curve: the layout contract of docs/numerics.md.

Over gloo, the backend's own code unmodified: on neuronx-distributed's real source (``make test-nxd``), and a few
layouts on the double, where there is no source. Parts of a layout's name: tests/distributed/layouts.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Rows
from tests.distributed.bench import reference, train
from tests.distributed.contract import assert_sound_reference, compare
from tests.distributed.layouts import STEPS, parse
from tests.neuron.library import CURVES, DOUBLE, over_gloo
from tests.ranks import Outcomes, RanksFailed

pytestmark = pytest.mark.timeout(5400)  # the first test waits for all the training

ON_DOUBLE = {
    "fp32": [
        "tp4-sp-padded",
        "pp2-interleaved-full",
        "cp2-zero1-padded",
        "dp2-tp2-sp-pp2-zero1",
        "tp2-qknorm",
        "tp2-sp-qknorm",
        "tp2-sp-rowbias",
        "tp2-sp-full-dropout",
        "pp2-interleaved-frozen",
        "dp2-full-frozen",
        "tp2-sp-zero1-full-mixed",
        "tp2-sp-multiquery",
        "tp2-parallel",
        "tp2-sp-pp2-learned",
        "tp4-sp-post",
        "cp2-zero1-window",
        "tp2-sp-pp2-lora",
        "tp2-sp-full-dora",
        "tp2-sp-full-blocks24-window",
        "cp2-zero1-blocks16-padded",
        "pp2-interleaved-full-blocks16-dropout",
    ],
    "bf16_mixed": ["tp2-blocks24-padded", "dp2-tp2-zero1-padded", "dp2-zero1-full-frozen", "dp2-tp2-zero1-lora"],
}
"""By precision: each axis, schedule, the tied head, copies of heads with padding, and products."""
IN_CI = (
    "cp2-zero1-padded",
    "tp2-sp-full-dropout",
    "pp2-interleaved-frozen",
    "tp2-sp-pp2-learned",
    "tp2-sp-pp2-lora",
    "dp2-tp2-zero1-padded",
    "tp2-sp-full-blocks24-window",
)
"""Each axis, ZeRO, padded heads and both precisions; the others, further models and products, are long."""
ON_SOURCE = {
    "fp32": [
        "one",
        "one-padded",
        "tp2",
        "tp2-padded",
        "tp2-sp",
        "tp2-sp-padded",
        "tp4",
        "tp4-padded",
        "tp4-sp",
        "tp4-sp-padded",
        "tp2-qknorm",
        "tp2-sp-qknorm",
        "tp2-sp-pp2-qknorm",
        "dp2",
        "dp2-zero1",
        "dp4-zero1-padded",
        "cp2-zero1",
        "cp2-zero1-padded",
        "cp2-padded",
        "pp2",
        "pp2-padded",
        "pp2-cuts1.4",
        "pp2-interleaved",
        "pp2-interleaved-full-padded",
        "pp4",
        "pp4-cuts1.2.1.1-padded",
        "tp2-full",
        "dp2-zero1-full-every2-padded",
        "tp2-sp-full-every2-padded",
        "dp2-tp2-padded",
        "tp2-sp-pp4",
        "tp2-sp-cp2-zero1-padded",
        "dp2-tp2-pp2",
        "dp2-tp2-pp2-padded",
        "dp2-tp2-sp-pp2-zero1",
        "dp2-tp2-sp-pp2-interleaved-zero1-full-every2",
        "dp2-tp2-sp-cp2-zero1-padded",
        "tp2-pp2-cp2-zero1-padded",
        "dp2-pp2-cp2-interleaved-zero1",
        "tp2-sp-full-dropout",
        "pp2-full-micro4-dropout",
        "cp2-zero1-dropout",
        "tp2-rowbias",
        "tp2-sp-rowbias",
        "one-frozen",
        "pp2-frozen",
        "pp2-interleaved-full-frozen",
        "dp2-zero1-full-frozen",
        "tp2-sp-full-mixed",
        "dp2-tp2-pp2-zero1-mixed",
        "tp2-multiquery",
        "tp2-sp-multiquery",
        "tp2-sp-parallel",
        "tp2-sp-learned",
        "pp2-learned",
        "tp2-sp-pp2-learned",
        "tp2-post",
        "tp4-sp-post",
        "tp2-sp-window",
        "tp2-lora",
        "tp4-sp-lora",
        "tp2-sp-pp2-lora",
        "dp2-zero1-full-lora",
        "pp2-interleaved-lora",
        "cp2-zero1-lora",
        "tp2-dora",
        "tp2-sp-full-dora",
        "tp2-sp-full-blocks24-window",
        "tp2-sp-cp2-zero1-blocks16-padded",
        "tp2-sp-pp2-blocks16",
    ],
    "bf16_mixed": [
        "dp2-tp2-sp-zero1-full-blocks24-padded",
        "tp2-sp-pp2-full-dropout",
        "dp2-zero1-full-frozen",
        "tp2-sp-pp2-mixed",
        "tp2-padded",
        "tp2-sp",
        "tp4-sp-padded",
        "pp4",
        "pp2-interleaved-padded",
        "dp2-zero1-full",
        "cp2-zero1-padded",
        "dp2-tp2-sp-pp2-zero1",
        "dp2-tp2-pp2-interleaved-zero1-full-padded",
        "dp2-tp2-sp-cp2-zero1-padded",
    ],
    "bf16": ["tp4-padded", "tp2-sp", "pp2-interleaved", "dp2-zero1-padded", "dp2-tp2-sp-pp2-zero1"],
}
REFUSED = "dp2-tp4-sp-zero1"
"""On 8 ranks NxD lays tensor-parallel groups of 4 out in strides; on 4 they are whoever there is."""
CASES = [
    *(
        pytest.param(
            name,
            kind,
            "double",
            marks=[pytest.mark.slow, *[pytest.mark.long] * (name not in IN_CI)],
            id=f"{name}-{kind}-double",
        )
        for kind, names in ON_DOUBLE.items()
        for name in names
    ),
    *(
        pytest.param(name, kind, "source", marks=pytest.mark.nxd, id=f"{name}-{kind}")
        for kind, names in ON_SOURCE.items()
        for name in names
    ),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curves")


@pytest.fixture(scope="module")
def references(selected: list[dict[str, str]], directory: Path) -> Outcomes:
    """Those of the tests that were selected, by the native backend."""
    return train(directory, [reference(params["name"], params["precision"]) for params in selected])


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, selected: list[dict[str, str]], directory: Path, references: Outcomes
) -> dict[str, Outcomes]:
    """All selected layouts, in one launch on each library."""
    found = {}
    for library in {params["library"]: None for params in selected}:
        source = DOUBLE if library == "double" else request.getfixturevalue("nxd_source")
        cases = [(params["name"], params["precision"]) for params in selected if params["library"] == library]
        found[library] = train(directory, cases, work=CURVES, setting=over_gloo(source))
    return found


@pytest.mark.parametrize(("name", "precision", "library"), CASES)
def test_equals_the_native_backend(
    references: Outcomes,
    outcomes: dict[str, Outcomes],
    rows: Rows,
    name: str,
    precision: str,
    library: str,
) -> None:
    (one,) = references[reference(name, precision)]
    assert_sound_reference(one)
    ranks = outcomes[library][name, precision]
    assert len(ranks) == parse(name).processes
    assert len(ranks[0]["steps"]) == STEPS
    label = name if library == "source" else f"{name} (double)"
    rows[label, precision] = compare(one, ranks, precision)
    rows[label, precision].assert_within()


@pytest.mark.nxd
def test_groups_that_are_not_ours_are_refused(directory: Path, nxd_source: Path) -> None:
    """Else every shard would be another rank's."""
    outcomes = train(directory, [(REFUSED, "fp32")], work=CURVES, setting=over_gloo(nxd_source))
    outcome = outcomes.found[REFUSED, "fp32"]
    assert isinstance(outcome, RanksFailed)
    assert "parallel.tp = 4" in str(outcome)
    assert "it has [(0, 2, 4, 6), (1, 3, 5, 7)]" in str(outcome)
