"""The recorded signatures of NxD's API against its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neuron.library import over_gloo
from tests.neuron.signatures import recorded
from tests.ranks import Task, run


@pytest.mark.nxd
def test_the_source_has_the_recorded_signatures(nxd_source: Path, tmp_path: Path) -> None:
    facts = recorded()
    task = Task("tests.neuron.signatures:signatures_of", 1, {"names": list(facts)})
    [found] = run(task, tmp_path, over_gloo(nxd_source))
    assert len(facts) > 40
    assert found.keys() == facts.keys()
    for name, signature in facts.items():
        assert found[name] == signature, name


def test_facts_can_be_asked_for_by_module() -> None:
    of_layers = recorded(["neuronx_distributed.parallel_layers.layers"])
    assert sorted(name.partition(":")[2] for name in of_layers) == [
        "ColumnParallelLinear",
        "ParallelEmbedding",
        "RowParallelLinear",
    ]
    assert ["reduce_dtype", "torch.float32", "POSITIONAL_OR_KEYWORD"] in next(iter(of_layers.values()))
