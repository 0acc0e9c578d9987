"""Packed training with masks is training on the documents one by one, in every lowering of a small matrix.

The other side is transformers' Llama, which sees one document at a time; neither packing nor masks are in its way.
"""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Setting, Task, attempt, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKER = "tests.distributed.packed_worker"
NATIVE = ["one", "tp2", "dp2-zero3-full", "tp2-sp-cp2", "pp2"]
NEURON = ["tp2-sp", "cp2-zero1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of many lengths, none above a sample's: 22, of which one or two are held out."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "corpus").mkdir()
    for index, text in enumerate(sorted(topics.values())[:22]):
        (folder / "corpus" / f"{index:03d}.txt").write_text(text[: 12 + 12 * (index % 11)], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, Any]:
    """What transformers finds."""
    [found] = run(Task(f"{WORKER}:documents_alone", arguments={"folder": "alone"}, seconds=300), place)
    assert found["documents"] > 15
    return dict(found)


def test_packed_is_one_by_one(place: Path, alone: dict[str, Any]) -> None:
    _hold(alone, place, "native", NATIVE, Setting())
    _hold(alone, place, "neuron", NEURON, over_gloo(DOUBLE))


def _hold(alone: dict[str, Any], place: Path, backend: str, layouts: list[str], setting: Setting) -> None:
    processes = {"one": 1, "tp2-sp-cp2": 4}
    tasks = {
        layout: Task(
            f"{WORKER}:first_step",
            processes.get(layout, 2),
            {"layout": layout, "reference": "alone", "backend": backend},
            seconds=300,
        )
        for layout in layouts
    }
    outcomes = attempt(tasks, place, setting)
    for layout in layouts:
        for found in outcomes[layout]:
            loss = abs(found["loss"] / alone["loss"] - 1)
            worst, name = found["gradients"]
            print(f"{backend} {layout}: loss {loss:.1e}, gradients {worst:.1e} ({name})")
            assert found["targets"] == alone["targets"], layout
            assert loss <= 1e-5, layout
            assert worst <= 1e-5, (layout, name)
