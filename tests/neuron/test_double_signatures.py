"""The double's signatures are NxD's: those on record in CI, and with the source at hand every one that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neuron.library import DOUBLE, over_gloo
from tests.neuron.signatures import recorded
from tests.ranks import Task, run

ROOT = "neuronx_distributed"
MODULES = [
    ".".join(path.relative_to(DOUBLE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((DOUBLE / ROOT).rglob("*.py"))
]
LEFT_OUT = {
    f"{ROOT}:{name}"
    for name in (
        "neuronx_distributed_config",
        "initialize_parallel_model",
        "initialize_parallel_optimizer",
        "save_checkpoint",
        "load_checkpoint",
        "has_checkpoint",
        "finalize_checkpoint",
    )
}
"""What NxD has on record in modules that the double has too, and the backend does not use."""


@pytest.mark.slow
def test_signatures_are_those_on_record(tmp_path: Path) -> None:
    facts = recorded(MODULES)
    task = Task("tests.neuron.signatures:signatures_of", 1, {"names": list(facts)})
    [found] = run(task, tmp_path, over_gloo(DOUBLE))
    assert facts.keys() - found.keys() == LEFT_OUT
    assert len(found) > 20
    for name, signature in found.items():
        assert signature == facts[name], name


@pytest.mark.nxd
@pytest.mark.slow
def test_signatures_are_those_of_the_source(nxd_source: Path, tmp_path: Path) -> None:
    work = "tests.neuron.signatures"
    [double] = run(Task(f"{work}:public", 1, {"modules": MODULES}), tmp_path, over_gloo(DOUBLE))
    [original] = run(Task(f"{work}:signatures_of", 1, {"names": list(double)}), tmp_path, over_gloo(nxd_source))
    assert len(double) > 60
    assert {name: double[name] for name in double if double[name] != original.get(name)} == {}
