"""The harness that runs neuronx-distributed on the CPU: collectives against sums done here, steps, failing ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.neuron.library import lazily, over_gloo
from tests.ranks import Outcomes, RanksFailed, Task, attempt, run

pytestmark = pytest.mark.nxd
WORKER = "tests.neuron.rank_worker"
GROUPS = [[0, 2], [3, 1]]
"""Neither contiguous nor in order: rank 3 comes first in the second group."""
LAYOUTS = [(None, False), (None, True), (0, False), (1, False), (1, True)]
"""The dimension that sequence parallelism splits, and whether activations are recomputed."""
TASKS = {
    "bfloat16": Task(f"{WORKER}:collectives", 4, {"groups": GROUPS, "dtype": "bfloat16"}),
    "float32": Task(f"{WORKER}:collectives", 4, {"groups": GROUPS, "dtype": "float32"}),
    "steps": Task(f"{WORKER}:steps", 2),
    **{str(at): Task(f"{WORKER}:block", 2, {"sequence_dimension": at[0], "recompute": at[1]}) for at in LAYOUTS},
    "plain": Task(f"{WORKER}:masters", 2, {"hook": False}),
    "hook": Task(f"{WORKER}:masters", 2, {"hook": True}),
    "raise": Task(f"{WORKER}:fail", 2, {"rank": 1, "how": "raise"}),
    "hang": Task(f"{WORKER}:fail", 2, {"rank": 1, "how": "hang"}, seconds=8),
}


@pytest.fixture(scope="module")
def outcomes(nxd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All of them from one import of NxD: what ranks found, or how they failed."""
    return attempt(TASKS, tmp_path_factory.mktemp("harness"), over_gloo(nxd_source))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_collectives(outcomes: Outcomes, dtype: str) -> None:
    found = outcomes[dtype]
    for group in GROUPS:
        for place, rank in enumerate(group):
            assert_collectives(found[rank], rank, group, place)


def test_steps(outcomes: Outcomes) -> None:
    for rank, told in enumerate(outcomes["steps"]):
        assert told["closures"] == [[], [1, 2], [1, 2]]
        assert told["ordinals"] == [rank, rank, 2, 2]
        assert told["master"] == (rank == 0)
        assert told["devices"] == ["cpu", "cpu"]
        assert told["stays"]
        assert "all_to_all" in told["refused"]


def assert_collectives(found: dict[str, object], rank: int, group: list[int], place: int) -> None:
    base = np.arange(12).reshape(4, 3)
    total = 2 * base + sum(group)
    shard = total[2 * place : 2 * place + 2]
    expected = {
        "fresh": base + max(group),
        "untouched": base + rank,
        "inplace": total / 2,
        "strided": total.T / 2,
        "gathered": np.concatenate([base[:1] + member for member in group], 1),
        "gathered_list": [[group[0]], [group[1]]],
        "scattered": shard,
        "scattered_list": 2 * shard,
        "world": [0],
    }
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name  # type: ignore[arg-type]
    assert found["payloads"] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_give_what_one_process_gives(outcomes: Outcomes, layout: tuple[int | None, bool]) -> None:
    for differences in outcomes[str(layout)]:
        assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("accumulation", ["plain", "hook"])
def test_zero_steps_on_masters_of_its_own(outcomes: Outcomes, accumulation: str) -> None:
    for rank in outcomes[accumulation]:
        assert rank["apart"], "a master shares memory with its parameter"
        assert rank["dtype"] == "torch.float32"
        assert rank["rows"] == 3, "5 rows are padded to 6"
        # The mean of 1 and 2 on 10 elements.
        assert rank["norm"] == pytest.approx(1.5 * 10**0.5, rel=1e-6)
        assert rank["weight"] == [[-1.5, -1.5]] * 5


@pytest.mark.parametrize(("how", "says"), [("raise", "the reason"), ("hang", "rank_worker.py")])
def test_a_failing_rank_is_told_with_its_log(outcomes: Outcomes, how: str, says: str) -> None:
    with pytest.raises(RanksFailed, match="rank 1") as failed:
        _ = outcomes[how]
    assert says in str(failed.value)


def test_without_gloo_tensors_are_lazy(nxd_source: Path, tmp_path: Path) -> None:
    [found] = run(Task(f"{WORKER}:lazy"), tmp_path, lazily(nxd_source))
    assert found == {"device": "xla", "cpu_mode": False, "right": True}
