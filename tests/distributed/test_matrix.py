"""Every layout gives the single process's curve, evaluation and next token: the layout contract of docs/numerics.md.

``make test-slow`` runs each axis once, ``make test-long`` the other layouts that prove something new each; ``make
test-layouts`` runs all and prints a table.
"""

from __future__ import annotations

import pytest

from tests.conftest import Rows
from tests.distributed.bench import reference, train_with_references
from tests.distributed.contract import assert_sound_reference, compare
from tests.distributed.layouts import STEPS, parse
from tests.ranks import Outcomes

pytestmark = pytest.mark.timeout(5400)  # the first test waits for all the training

OF_FAMILIES = ("biased", "multiquery", "parallel", "learned", "post", "window", "mistral")
"""Models of Llama with biases, Falcon 7B and 40B, GPT-2, OLMo 2, Qwen3, Mistral; the padded one is Qwen2."""
OF_ADAPTERS = (
    "dp2",
    "tp2",
    "tp2-sp",
    "tp4-sp-full",
    "pp2-zb",
    "pp2-interleaved",
    "dp2-zero1",
    "dp2-zero3-full",
    "cp2",
    "tp2-sp-cp2-selective",
)
"""Layouts of LoRA and DoRA, by whose tests every axis, ZeRO stage and kind of recomputation meets adapters."""
QUICK = {
    "fp32": [
        "cp2-sp-zero2-padded",
        "tp2-sp-pp2-interleaved-padded",
        "dp2-tp2-sp-pp2-zb-zero1",
        "tp2-sp-qknorm",
        "tp2-sp-cp2-full-micro1-dropout",
        "pp2-zb-frozen",
        "dp2-tp2-sp-full-mixed",
        "tp2-sp-cp2-post",
        "tp2-sp-pp2-learned",
        "tp2-sp-pp2-lora",
        "dp2-zero3-dora",
    ],
    "bf16_mixed": ["dp2-zero3-selective-frozen", "tp2-sp-lora"],
}
"""By precision: each axis, schedule, ZeRO stage and kind of recomputation, in products."""
IN_CI = (
    "cp2-sp-zero2-padded",
    "tp2-sp-pp2-interleaved-padded",
    "tp2-sp-cp2-full-micro1-dropout",
    "pp2-zb-frozen",
    "dp2-zero3-selective-frozen",
    "tp2-sp-pp2-lora",
    "dp2-zero3-dora",
)
"""Each axis, schedule and kind of recomputation, ZeRO, padded heads, both precisions; other quick ones are long."""
FULL = {
    "fp32": [
        "dp2",
        "dp4",
        "dp2-zero3-full-every2",
        "pp4-cuts1.2.1.1-padded",
        "tp2-qknorm",
        "pp2-interleaved-micro4-dropout",
        "tp4-sp",
        "dp2-pp2-zero1-selective",
        "tp2-padded",
        "pp2-zb",
        "dp2-tp2-cp2-padded",
        "tp4",
        "tp4-padded",
        "tp4-sp-padded",
        "dp2-tp4-zero1",
        "tp8-padded",
        "tp2-sp-padded",
        "cp2-padded",
        "cp4-padded",
        "pp2",
        "pp2-interleaved-padded",
        "pp4",
        "dp2-zero1",
        "dp2-zero2-padded",
        "dp2-zero3",
        "tp2-full-padded",
        "tp2-sp-selective-padded",
        "dp2-zero3-selective",
        "dp2-tp2-padded",
        "tp2-sp-cp2-padded",
        "cp2-zero3",
        "dp2-cp2-zero2-padded",
        "dp4-zero1-padded",
        "pp2-cp2-full",
        "dp2-pp2-zb-zero1",
        "pp2-interleaved-full-padded",
        "pp2-zb-padded",
        "tp2-sp-pp4",
        "dp2-tp2-pp2",
        "dp2-tp2-sp-cp2-padded",
        "dp2-tp2-sp-pp2-zero1",
        "tp2-pp2-cp2-padded",
        "dp2-tp2-sp-cp2-zero3-selective",
        "dp2-tp2-sp-pp2-interleaved-zero1-full-every2",
        "dp2-pp2-cp2-interleaved-zero1-selective",
        "tp2-sp-selective-rowbias",
        "dp2-dropout",
        "dp2-micro4-dropout",
        "tp2-dropout",
        "tp2-sp-dropout",
        "pp2-dropout",
        "pp2-zb-dropout",
        "cp2-dropout",
        "dp2-full-dropout",
        "dp2-selective-dropout",
        "tp2-sp-selective-every2-dropout",
        "dp2-zero3-dropout",
        "dp2-frozen",
        "tp2-sp-frozen",
        "pp2-frozen",
        "pp2-interleaved-full-frozen",
        "dp2-pp2-zb-zero1-frozen",
        "dp2-zero1-frozen",
        "dp2-zero2-frozen",
        "dp2-zero3-frozen",
        "dp2-full-frozen",
        "dp2-selective-frozen",
        *(f"{layout}-{model}" for layout in ("tp2", "pp2", "dp2-zero3") for model in OF_FAMILIES),
        *(f"tp4-sp-{model}" for model in OF_FAMILIES),
        "cp2-zero3-window",
        *(f"tp2-sp-full-{model}" for model in OF_FAMILIES),
        *(f"cp2-sp-{model}" for model in ("learned", "window", "mistral")),
        "tp2-mixed",
        "tp4-sp-mixed",
        "tp2-sp-pp2-interleaved-mixed",
        "dp2-zero3-full-mixed",
        *(f"{layout}-{model}" for layout in OF_ADAPTERS for model in ("lora", "dora")),
        *(f"{layout}-tiedlora" for layout in ("tp2-sp", "pp2", "dp2-zero3")),
    ],
    "bf16_mixed": [
        "tp2-sp-pp2-interleaved-padded",
        "tp2-sp-full-dropout",
        "pp2-dropout",
        "dp2-frozen",
        "tp2-sp-pp2-zb-mixed",
        "dp2-zero2-mixed",
        "tp4-padded",
        "dp4-zero1-padded",
        "tp2-sp-cp2-padded",
        "dp2-zero3-full",
        "dp2-pp2-zb-zero1",
        "pp4-full",
        "dp2-tp2-sp-pp2-zero1",
        "dp2-tp2-sp-cp2-zero2",
        *(f"tp2-sp-{model}" for model in OF_FAMILIES),
        "dp2-zero3-lora",
        "tp2-sp-pp2-dora",
    ],
    "bf16": [
        "dp2-zero1-lora",
        "tp2-sp-mixed",
        "dp2-zero1-frozen",
        "tp2-cp2-padded",
        "tp4-padded",
        "dp2-zero2",
        "tp2-sp-pp2-interleaved-padded",
    ],
}
"""What ``make test-layouts`` adds."""
BOTH = [pytest.mark.layouts, pytest.mark.slow]
CASES = [
    *(
        pytest.param(name, kind, marks=[*BOTH, *[pytest.mark.long] * (name not in IN_CI)])
        for kind in QUICK
        for name in QUICK[kind]
    ),
    *(pytest.param(name, kind, marks=pytest.mark.layouts) for kind in FULL for name in FULL[kind]),
]


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Trains the layouts of the tests that were selected, and what they are compared with, in one go."""
    cases = [(params["name"], params["precision"]) for params in selected]
    return train_with_references(tmp_path_factory.mktemp("matrix"), cases)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_equals_one_process(outcomes: Outcomes, rows: Rows, name: str, precision: str) -> None:
    (one,) = outcomes[reference(name, precision)]
    assert_sound_reference(one)
    ranks = outcomes[name, precision]
    assert len(ranks) == parse(name).processes
    assert len(ranks[0]["steps"]) == STEPS
    rows[name, precision] = compare(one, ranks, precision)
    rows[name, precision].assert_within()
