"""The doors of docs/extending.md, walked from a directory outside the tree: nothing of trainer/ is touched."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.selection import long

FAMILY = harness.ROOT / "tests" / "qk_norm.py"
PAGE = (harness.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SMALL = [
    *harness.SMALL,
    "train.steps=6",
    "precision=fp32",
    "data.sources=[{name: c, paths: [corpus]}]",
    "data.heldout_fraction=0",
]


def shown(name: str) -> str:
    """A file of the page, without the comment that names it."""
    (code,) = re.findall(rf"```python\n# mine/{name}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def test_the_page_shows_the_family_that_the_layouts_train() -> None:
    assert shown("my_family.py") == FAMILY.read_text(encoding="utf-8")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a user's own, with the page's files and a corpus."""
    for name in ("my_family.py", "my_optimizer.py", "my_backend.py"):
        (tmp_path / name).write_text(shown(name), encoding="utf-8")
    harness.write_corpus(tmp_path / "corpus")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def curves(
    where: Path, common: list[str], layouts: dict[str, tuple[int, list[str]]]
) -> dict[str, list[dict[str, Any]]]:
    """Train under each layout, by name: (processes, overrides); the steps' records."""
    for name, (processes, layout) in layouts.items():
        done = harness.train(where, [*SMALL, *common, f"run.name={name}", *layout], processes)
        assert done.code == 0, done.output
    return {name: harness.records(where / "runs" / name) for name in layouts}


@pytest.mark.slow
@pytest.mark.long
def test_a_family_from_outside_trains_the_same_curve_under_tensor_parallelism(outside: Path) -> None:
    found = curves(
        outside,
        ["model.family=my_family:family"],
        {"one": (1, []), "tp2": (2, ["parallel.tp=2"]), "sp": (2, ["parallel.tp=2", "parallel.sp=true"])},
    )
    assert len(found["one"]) == 6
    assert found["one"][-1]["loss"] < found["one"][0]["loss"]
    for name in ("tp2", "sp"):
        harness.assert_same_curve(found["one"], found[name])


@pytest.mark.slow
def test_an_elementwise_optimizer_from_outside_works_on_shards(outside: Path) -> None:
    found = curves(
        outside,
        ["optim.name=my_optimizer:Lion", "optim.options={beta1: 0.95}", "optim.lr=3e-4"],
        {"one": (1, []), "zero1": (2, ["parallel.zero=1"])},
    )
    # The sign of a gradient near 0 turns with the order of a sum, and takes its whole update with it.
    assert harness.worst_difference(found["one"], found["zero1"], "loss") < 1e-3
    assert found["one"][-1]["loss"] < found["one"][0]["loss"]


@pytest.mark.slow
def test_a_backend_from_outside_executes_the_step(outside: Path) -> None:
    evaluated = ["data.heldout_fraction=0.1", "evaluation.every_steps=3"]
    native = harness.train(outside, [*SMALL, *evaluated, "run.name=native"])
    assert native.code == 0, native.output
    done = harness.train(outside, [*SMALL, *evaluated, "run.name=mine", "backend.name=my_backend:make"])
    assert done.code == 0, done.output
    assert re.findall(r"rank 0: \d+ batches in", done.output)
    lines = [harness.records(outside / "runs" / name) for name in ("native", "mine")]
    assert [(a["loss"], a["grad_norm"]) for a in lines[0]] == [(b["loss"], b["grad_norm"]) for b in lines[1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("model.family=nowhere:family", "Python finds the module nowhere"),
        ("model.family=my_family:number", "returns a trainer.models.family.Family, not int"),
        ("backend.name=nativ", "trainer/backends"),
        *long(
            ("model.family=lama", "trainer/models/families"),
            ("model.family=my_family:falimy", "falimy"),
            ("model.options={a: 1}", "model.options"),
            ("backend.name=my_family:number", "number"),
            ("backend.options={a: 1}", "backend.options"),
        ),
    ],
)
def test_a_door_that_leads_nowhere_is_a_mistake_with_a_remedy(given: str, told: str, outside: Path) -> None:
    with open(outside / "my_family.py", "a", encoding="utf-8") as file:
        file.write("\n\ndef number(*given):\n    return 3\n")
    done = harness.train(outside, [*SMALL, "run.name=wrong", given])
    assert done.code == 3, done.output
    assert told in done.output
    assert "Traceback" not in done.output
