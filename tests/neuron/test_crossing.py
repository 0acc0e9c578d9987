"""Checkpoints cross between the neuron and the native backend, bitwise, and a run resumes from its own bit-equal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import harness
from tests.distributed.contract import BF16
from tests.distributed.layouts import parse
from tests.distributed.test_exchange import TENSORS, whole_tensors
from tests.neuron.crossing_worker import AGAIN, Leg
from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import PLAIN, Task, attempt
from trainer.checkpoint.directory import name_of

pytestmark = pytest.mark.timeout(1800)  # the first test waits for all the training

STOPS = [6, 9, 12]
"""Steps after which each leg ends."""
JOURNEYS = {
    "tied": ("fp32", ["dp2-tp2-pp2-zero1", "dp4", "tp4-sp"]),
    "padded": ("fp32", ["dp2-tp2-pp2-zero1-padded", "dp4-padded", "tp4-padded"]),
    "mixed": ("bf16_mixed", ["dp2-tp2-sp-pp2-interleaved-zero1-padded", "dp4-zero1-padded", "tp4-sp-padded"]),
}
"""Neuron, native, neuron. tied: a head that is the embedding at a pipeline's other end; its key-value heads are held
twice on 4 ranks. padded: heads held twice and padded ones."""
RESUMED = {"dp2-tp2-sp-pp2-zero1": "bf16_mixed", "tp4-sp-padded": "fp32", "dp2-zero1-padded": "bf16"}
"""Layouts that go on from their own checkpoint, and their precisions."""
FIRST, LAST = 4, 7
ON_DOUBLE = ("padded", "dp2-tp2-sp-pp2-zero1")


class Travels:
    """Every leg on one library."""

    def __init__(self, directory: Path, source: Path, journeys: list[str], resumed: list[str]) -> None:
        self._directory, self._source = directory, source
        self.curves: dict[str, list[dict[str, Any]]] = {}
        self.out = directory / "legs" / source.name
        legs = [leg for name in journeys for leg in self.journey(name)]
        again = [leg for layout in resumed for leg in self.resumed(layout)]
        self._go("neuron", [*(leg for leg in legs if not leg.source), *again])
        self._go("native", [*(leg for leg in legs if leg.backend == "native"), *map(self.straight, journeys)])
        self._go("neuron", [leg for leg in legs if leg.backend == "neuron" and leg.source])

    def journey(self, name: str) -> list[Leg]:
        """Its legs."""
        precision, layouts = JOURNEYS[name]
        legs: list[Leg] = []
        for index, (layout, stop) in enumerate(zip(layouts, STOPS, strict=True)):
            source = str(Path(legs[-1].out) / name_of(STOPS[index - 1])) if legs else ""
            backend = "native" if index == 1 else "neuron"
            legs.append(Leg(backend, layout, precision, str(self.out / name / str(index)), [stop], source))
        return legs

    def straight(self, name: str) -> Leg:
        """The same model in one native process."""
        precision, layouts = JOURNEYS[name]
        return Leg("native", parse(layouts[0]).reference, precision, str(self.out / name / "straight"), STOPS[-1:])

    def resumed(self, layout: str) -> list[Leg]:
        """Without a stop, and from its checkpoint in new processes."""
        out = self.out / layout
        whole = Leg("neuron", layout, RESUMED[layout], str(out / "whole"), [FIRST, LAST])
        return [whole, replace(whole, out=str(out / "rest"), saves=[LAST], source=str(out / "whole" / name_of(FIRST)))]

    def _go(self, backend: str, legs: list[Leg]) -> None:
        native = backend == "native"
        tasks = {
            leg.out: Task(
                "tests.neuron.crossing_worker:go", parse(leg.layout).processes, asdict(leg), seconds=300, silent=native
            )
            for leg in legs
        }
        outcomes = attempt(tasks, self._directory, PLAIN if native else over_gloo(self._source))
        self.curves |= {out: outcomes[out][0] for out in tasks}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a corpus."""
    found = tmp_path_factory.mktemp("crossing")
    harness.write_corpus(found / "corpus")
    return found


def _travels(selected: list[dict[str, str]], directory: Path, source: Path) -> Travels:
    """Those of the selected tests."""
    journeys = [params["name"] for params in selected if "name" in params]
    return Travels(directory, source, journeys, [params["layout"] for params in selected if "layout" in params])


@pytest.fixture(scope="module")
def on_source(selected: list[dict[str, str]], directory: Path, nxd_source: Path) -> Travels:
    return _travels(selected, directory, nxd_source)


@pytest.fixture(scope="module")
def on_double(selected: list[dict[str, str]], directory: Path) -> Travels:
    return _travels(selected, directory, DOUBLE)


def _assert_bitwise(a: Path, b: Path, count: int) -> dict[str, torch.Tensor]:
    expected, actual = whole_tensors(a), whole_tensors(b)
    assert expected.keys() == actual.keys()
    assert len(expected) == 3 * count
    for name in expected:
        assert expected[name].dtype == actual[name].dtype
        assert torch.equal(expected[name], actual[name]), name
    assert any(name.startswith("optimizer exp_avg_sq") and values.any() for name, values in expected.items())
    assert written(a / "state.json") == written(b / "state.json")
    return expected


def written(path: Path) -> Any:
    """JSON that a rank has left."""
    return json.loads(path.read_text())


def _assert_crossed(travels: Travels, name: str) -> None:
    precision, layouts = JOURNEYS[name]
    legs = travels.journey(name)
    count = TENSORS[parse(layouts[0]).reference]
    for leg in legs[1:]:
        source = Path(leg.source)
        _assert_bitwise(source, Path(leg.out) / AGAIN / source.name, count)
        assert written(source / "state.json")["updates"] == written(source / "state.json")["step"]
    straight = travels.curves[travels.straight(name).out]
    travelled = [line for leg in legs for line in travels.curves[leg.out]]
    assert [line["step"] for line in travelled] == list(range(1, STOPS[-1] + 1))
    if precision == "fp32":
        harness.assert_same_curve(straight, travelled)
    else:
        assert harness.worst_difference(straight, travelled, "loss") <= BF16["last"]


def _assert_resumed(travels: Travels, layout: str) -> None:
    whole, rest = travels.resumed(layout)
    assert travels.curves[rest.out] == travels.curves[whole.out][FIRST:]
    count = TENSORS[parse(layout).reference]
    tensors = _assert_bitwise(Path(whole.out) / name_of(LAST), Path(rest.out) / name_of(LAST), count)
    if RESUMED[layout] == "bf16_mixed":
        masters = [values for name, values in tensors.items() if name.startswith("model ")]
        assert all((values != values.bfloat16().float()).any() for values in masters if values.dim() > 1)


@pytest.mark.nxd
@pytest.mark.parametrize("name", JOURNEYS)
def test_checkpoints_cross(on_source: Travels, name: str) -> None:
    _assert_crossed(on_source, name)


@pytest.mark.nxd
@pytest.mark.parametrize("layout", RESUMED)
def test_a_resumed_run_is_bit_equal(on_source: Travels, layout: str) -> None:
    _assert_resumed(on_source, layout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DOUBLE[:1])
def test_checkpoints_cross_on_the_double(on_double: Travels, name: str) -> None:
    _assert_crossed(on_double, name)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("layout", ON_DOUBLE[1:])
def test_a_resumed_run_is_bit_equal_on_the_double(on_double: Travels, layout: str) -> None:
    _assert_resumed(on_double, layout)
