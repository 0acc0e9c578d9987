"""The doors of docs/extending.md, walked from a directory outside the tree: nothing of trainer/ is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import harness

FAMILY = harness.ROOT / "tests" / "qk_norm.py"
SMALL = [
    *harness.SMALL,
    "train.steps=6",
    "precision=fp32",
    "data.sources=[{name: c, paths: [corpus]}]",
    "data.heldout_fraction=0",
]


def test_the_page_shows_the_family_that_the_layouts_train() -> None:
    page = (harness.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n# mine/my_family.py\n(.*?)```", page, re.DOTALL)
    assert shown == FAMILY.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_family_from_outside_trains_the_same_curve_under_tensor_parallelism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_family.py").write_text(FAMILY.read_text(encoding="utf-8"), encoding="utf-8")
    harness.write_corpus(tmp_path / "corpus")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, processes, layout in (
        ("one", 1, ()),
        ("tp2", 2, ("parallel.tp=2",)),
        ("sp", 2, ("parallel.tp=2", "parallel.sp=true")),
    ):
        given = [*SMALL, "model.family=my_family:family", f"run.name={name}", *layout]
        done = harness.train(tmp_path, given, processes)
        assert done.code == 0, done.output
    one = harness.records(tmp_path / "runs" / "one")
    assert len(one) == 6
    assert one[-1]["loss"] < one[0]["loss"]
    for name in ("tp2", "sp"):
        harness.assert_same_curve(one, harness.records(tmp_path / "runs" / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("model.family=lama", "trainer/models/families"),
        ("model.family=nowhere:family", "Python finds the module nowhere"),
        ("model.family=my_family:falimy", "falimy"),
        ("model.family=my_family:number", "returns a trainer.models.family.Family, not int"),
        ("model.options={a: 1}", "reads no options"),
    ],
)
def test_a_family_that_is_none_is_a_mistake_with_a_remedy(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_family.py").write_text("def number(config):\n    return 3\n", encoding="utf-8")
    harness.write_corpus(tmp_path / "corpus")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = harness.train(tmp_path, [*SMALL, "run.name=wrong", given])
    assert done.code == 3, done.output
    assert told in done.output
    assert "Traceback" not in done.output
