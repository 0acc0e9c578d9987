"""On torch_xla too the rows of an embedding's gradient are added up in FP32: its own scatter adds in the weight's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neuron.library import DOUBLE, lazily
from tests.ranks import Task, attempt

DTYPES = ("bfloat16", "float32")


@pytest.mark.parametrize(
    "real",
    [
        pytest.param(True, marks=pytest.mark.nxd, id="source"),
        pytest.param(False, marks=pytest.mark.slow, id="double"),
    ],
)
def test_a_thousand_ones_are_a_thousand(request: pytest.FixtureRequest, tmp_path: Path, real: bool) -> None:
    """On the first of two tensor-parallel ranks, which plays the other too: it has no such token."""
    source = request.getfixturevalue("nxd_source") if real else DOUBLE
    tasks = {dtype: Task("tests.neuron.embedding_worker:ones", 1, {"dtype": dtype}) for dtype in DTYPES}
    outcomes = attempt(tasks, tmp_path, lazily(source))
    for dtype in DTYPES:
        [found] = outcomes[dtype]
        for style in ("whole", "sequence"):
            assert found[style] == {"row": [1000.0] * 8, "others": 0, "scatter": ["f32"]}, (dtype, style)
