"""An embedding row's gradient is summed in FP32 in every layout of both backends: a microbatch of 1,024 equal tokens.

Added up in BF16 the row stops growing at 256 of them, and is half its size or less.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.layouts import parse
from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import PLAIN, Outcomes, Task, attempt
from tests.selection import in_ci

pytestmark = pytest.mark.slow

Case = tuple[str, str, str]
NATIVE = [
    "one-micro4",
    "dp2-micro4",
    "tp2-micro4",
    "tp2-sp-micro4",
    "dp2-micro4-zero1",
    "dp2-micro4-zero2",
    "dp2-micro4-zero3",
    "pp2-micro4",
    "pp2-zb-micro4",
    "cp2-micro4",
    "tp2-sp-micro4-padded",
]
NEURON = ["one-micro4", "tp2-micro4", "tp2-sp-micro4", "dp2-micro4-zero1", "pp2-micro4", "cp2-micro4-zero1"]
CASES: list[Case] = [
    *((name, "bf16_mixed", "native") for name in NATIVE),
    *((name, "bf16", "native") for name in ("one-micro4", "tp2-micro4", "dp2-micro4-zero2")),
    *((name, "bf16_mixed", "neuron") for name in NEURON),
    ("tp2-sp-micro4", "bf16", "neuron"),
]
IN_CI: list[Case] = [
    *((f"{name}-micro4", "bf16_mixed", "native") for name in ("one", "tp2-sp", "pp2", "cp2")),
    ("dp2-micro4-zero2", "bf16", "native"),
    *((f"{name}-micro4", "bf16_mixed", "neuron") for name in ("tp2-sp", "pp2")),
    ("dp2-micro4-zero1", "bf16_mixed", "neuron"),
]
"""Each axis on either backend; the others are long."""


def exact(layout: str) -> Case:
    """What a layout is compared with."""
    return f"{parse(layout).reference}-micro4", "fp32", "native"


def task(case: Case) -> Task:
    arguments = dict(zip(("layout", "precision", "name"), case, strict=True))
    return Task("tests.distributed.embedding_worker:row", parse(case[0]).processes, arguments)


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcomes]:
    directory = tmp_path_factory.mktemp("embedding")
    cases = [(params["layout"], params["precision"], params["backend"]) for params in selected]
    native = [*(exact(layout) for layout, *_ in cases), *(case for case in cases if case[2] == "native")]
    neuron = [case for case in cases if case[2] == "neuron"]
    return {
        "native": attempt({case: task(case) for case in native}, directory, PLAIN),
        "neuron": attempt({case: task(case) for case in neuron}, directory, over_gloo(DOUBLE)),
    }


def rows(ranks: list[Any]) -> list[torch.Tensor]:
    """Every rank's copies."""
    return [torch.tensor(values) for copies in ranks for values in copies]


@pytest.mark.parametrize(("layout", "precision", "backend"), in_ci(CASES, IN_CI))
def test_equal_tokens_add_up(outcomes: dict[str, Outcomes], layout: str, precision: str, backend: str) -> None:
    """Against FP32 in one process; what BF16 activations are off is within the bound."""
    [expected] = rows(outcomes["native"][exact(layout)])
    found = rows(outcomes[backend][layout, precision, backend])
    assert found
    for row in found:
        assert float((row - expected).norm() / expected.norm()) < 0.02
