"""The double computes what neuronx-distributed's real source computes: same program, same numbers, both over gloo."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Outcomes, Task, attempt

pytestmark = [pytest.mark.nxd, pytest.mark.slow]
LAYERS, TRAINING = "tests.neuron.agree_layers", "tests.neuron.agree_training"

TP = {
    f"{work} tp{tp}": Task(f"{LAYERS}:{work}", tp, {"tp": tp})
    for tp in (2, 4)
    for work in ("linears", "embeddings", "regions")
}
SIZES = ("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size")
GROUPS = {
    f"groups of {world}, tp {tp} cp {cp} pp {pp}": Task(
        f"{TRAINING}:groups", world, dict(zip(SIZES, (tp, cp, pp), strict=True))
    )
    for world, tp, cp, pp in ((4, 2, 1, 2), (4, 2, 2, 1), (8, 2, 2, 2), (8, 4, 1, 1), (2, 8, 1, 1))
}
TABLE = [
    [1, 1, 1, 1], [2, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 4], [2, 2, 2, 2], [8, 1, 4, 1], [8, 1, 2, 4], [8, 2, 2, 2],
    [8, 4, 1, 1], [32, 1, 1, 1], [32, 1, 2, 4], [32, 2, 4, 8], [4, 1, 8, 1], [4, 1, 16, 1], [4, 1, 2, 4], [4, 2, 4, 1],
    [4, 1, 8, 2], [4, 2, 8, 2],
]  # fmt: skip
"""[tp, cp, dp, pp]; TP 4 has trn1's layout of its own, which does not fit every other axis."""
ZERO = {
    f"zero tp{tp} dp{processes // tp} {'sp ' * sp}{dtype}{' accumulated in fp32' * accumulate}": Task(
        f"{TRAINING}:zero", processes, {"tp": tp, "sequence_parallel": sp, "dtype": dtype, "accumulate": accumulate}
    )
    for processes, tp, sp, dtype, accumulate in (
        (2, 1, False, "fp32", False),
        (4, 2, False, "fp32", True),
        (4, 2, True, "fp32", False),
        (4, 2, True, "bf16", True),
    )
}
EACH = ["layers.0", "layers.1", "layers.2"]
PIPELINE = {
    f"pipeline {name}": Task(f"{TRAINING}:pipeline", processes, arguments)
    for name, processes, arguments in (
        ("pp2", 2, {"tp": 1, "pp": 2, "cuts": ["layers.1"]}),
        (
            "pp4 loss on the last stage",
            4,
            {"tp": 1, "pp": 4, "cuts": EACH, "broadcast": False},
        ),
        ("pp2 tp2 sp", 4, {"tp": 2, "pp": 2, "cuts": ["layers.2"], "sequence_parallel": True}),
        ("pp2 tied", 2, {"tp": 1, "pp": 2, "cuts": ["layers.0"], "tied": True}),
        ("pp2 dp2 virtual", 4, {"tp": 1, "pp": 2, "cuts": EACH, "virtual": 2}),
        ("pp2 dp2 without zero", 4, {"tp": 1, "pp": 2, "cuts": ["layers.1"], "zero": False}),
    )
}
TASKS = {**TP, **GROUPS, "meshes": Task(f"{TRAINING}:meshes", 1, {"table": TABLE, "cores": 32}), **ZERO, **PIPELINE}


@pytest.fixture(scope="module")
def both(selected: list[dict[str, Any]], nxd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcomes]:
    """What each selected task found, by the original and by the double."""
    tasks = {params["name"]: TASKS[params["name"]] for params in selected}
    return [attempt(tasks, tmp_path_factory.mktemp("agrees"), over_gloo(source)) for source in (nxd_source, DOUBLE)]


def differences(original: Any, double: Any, where: str = "") -> list[str]:
    """Where two findings are not the same; floats to 1e-6 of the larger of themselves and one."""
    if isinstance(original, dict) and isinstance(double, dict):
        found = [] if list(original) == list(double) else [f"{where}: {list(original)} against {list(double)}"]
        both = [key for key in original if key in double]
        return found + [line for key in both for line in differences(original[key], double[key], f"{where}/{key}")]
    if isinstance(original, list) and isinstance(double, list) and len(original) == len(double):
        pairs = enumerate(zip(original, double, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}[{i}]")]
    if isinstance(original, float) and isinstance(double, float):
        same = original == double or math.isclose(original, double, rel_tol=1e-6, abs_tol=1e-6)
    else:
        same = original == double
    return [] if same else [f"{where}: {original} against {double}"]


@pytest.mark.parametrize("name", TASKS)
def test_agrees(name: str, both: list[Outcomes]) -> None:
    original, double = both
    found = differences(original[name], double[name])
    assert not found, "\n".join([f"{len(found)} differences", *found[:20]])
