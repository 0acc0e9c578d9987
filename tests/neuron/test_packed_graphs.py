"""A step of packed documents is two graphs, whatever documents its samples have, with attention block by block.

On the real lazy tensors and the double, with the compile guard armed after two steps of six: a late graph would be an
error. The pipeline's numbers are test_pipeline_graphs.py's.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.neuron.library import DOUBLE, lazily
from tests.neuron.test_pipeline_graphs import GOLDEN
from tests.ranks import Task, run


@pytest.mark.slow
def test_two_graphs_train_on_any_documents(tmp_path: Path) -> None:
    layout = "one-blocks16"
    task = Task("tests.neuron.pipeline_graphs:stage", 1, {"layout": layout, "rank": 0}, seconds=300)
    [found] = run(task, tmp_path, lazily(DOUBLE))
    assert {name: found[name] for name in ("graphs", "launches")} == json.loads(GOLDEN.read_text())[layout][0]
    assert {name: found["graphs"][name] for name in ("forward-backward", "optimizer")} == {
        "forward-backward": 1,
        "optimizer": 1,
    }
