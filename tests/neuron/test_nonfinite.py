"""A NaN or an infinity in one rank's gradient changes no bit on any rank; training goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import harness
from tests.distributed.layouts import parse
from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Outcomes, Task, attempt

pytestmark = pytest.mark.timeout(1200)  # the first test waits for all the training

KINDS = ("q_proj", "k_proj", "o_proj", "input_layernorm", "down_proj")
"""Fused and cut, held twice, cut along its other dim, whole on every rank, cut."""
VALUES = ("nan", "inf", "-inf")


def _cases(ranks: tuple[int, ...], kinds: tuple[str, ...] = KINDS) -> list[list[object]]:
    """Every kind on one of the ranks and every value on each rank, in turns."""
    count = max(len(ranks) * len(VALUES), len(kinds))
    return [[ranks[i % len(ranks)], kinds[i % len(kinds)], VALUES[i // len(ranks) % len(VALUES)]] for i in range(count)]


LAYOUTS = {
    ("dp2-tp2-sp-pp2-zero1", "fp32"): _cases((1, 2, 4)),  # another rank of tp, of dp, another stage
    ("dp2-tp2-sp-pp2-zero1", "bf16_mixed"): _cases((7,)),
    ("tp4-padded", "bf16"): _cases((3,), ("k_proj", "down_proj")),  # its heads are copies, its queries padding
    ("dp2-tp2-padded", "fp32"): _cases((1, 2)),
    ("cp2-zero1-padded", "fp32"): _cases((1,)),
}
ON_DOUBLE = ("dp2-tp2-sp-pp2-zero1", "fp32")


def _run(directory: Path, source: Path, layouts: list[tuple[str, str]]) -> Outcomes:
    tasks = {
        (layout, precision, poisoned): Task(
            "tests.neuron.poison_worker:poison",
            parse(layout).processes,
            {"layout": layout, "precision": precision, "cases": LAYOUTS[layout, precision] if poisoned else []},
            seconds=300,
        )
        for layout, precision in layouts
        for poisoned in (False, True)
    }
    return attempt(tasks, directory, over_gloo(source))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a corpus."""
    found = tmp_path_factory.mktemp("nonfinite")
    harness.write_corpus(found / "corpus")
    return found


@pytest.fixture(scope="module")
def on_source(selected: list[dict[str, str]], directory: Path, nxd_source: Path) -> Outcomes:
    return _run(directory, nxd_source, [(params["layout"], params["precision"]) for params in selected])


@pytest.fixture(scope="module")
def on_double(directory: Path) -> Outcomes:
    return _run(directory, DOUBLE, [ON_DOUBLE])


def _assert_untouched(outcomes: Outcomes, layout: str, precision: str) -> None:
    straight, ranks = outcomes[layout, precision, False], outcomes[layout, precision, True]
    cases = LAYOUTS[layout, precision]
    for index, (rank, kind, value) in enumerate(cases):
        steps = [found["bad"][index] for found in ranks]
        where = f"{value} in {kind} on rank {rank}"
        assert [step["put"] for step in steps] == [r == rank for r in range(len(ranks))], where
        (metrics,) = {tuple(step["metrics"]) for step in steps}  # one report on every rank
        loss, norm, finite = metrics
        assert finite == "False", where
        assert norm in ("nan", "inf"), where
        assert loss not in ("nan", "inf"), where
        for found, step in zip(ranks, steps, strict=True):
            assert step["state"] == found["good"][1]["state"], where
    for found, expected in zip(ranks, straight, strict=True):
        assert found["good"] == expected["good"]
        assert [step["updates"] for step in found["good"]] == [1, 2, 3, 4]
        assert len({step["state"] for step in found["good"]}) == 4, "good steps do change the state"
        assert all(step["finite"] for step in found["good"])


@pytest.mark.nxd
@pytest.mark.parametrize(("layout", "precision"), LAYOUTS)
def test_what_is_not_finite_touches_nothing(on_source: Outcomes, layout: str, precision: str) -> None:
    _assert_untouched(on_source, layout, precision)


@pytest.mark.slow
def test_what_is_not_finite_touches_nothing_on_the_double(on_double: Outcomes) -> None:
    _assert_untouched(on_double, *ON_DOUBLE)
