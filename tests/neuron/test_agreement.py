"""Ranks that would hang each other are told so, over gloo, by name and by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.ranks import Task, run
from trainer.backends.neuron.graphs.agreement import DisagreementError, Item, agree_on, difference, host_group

REDUCE: Item = ("all-reduce", 8, "bf16", 128)
GATHER: Item = ("all-gather", 8, "bf16", 128)
SCATTER: Item = ("reduce-scatter", 8, "bf16", 1024)


def test_equal_lists_agree() -> None:
    assert difference({0: [REDUCE, GATHER], 1: [REDUCE, GATHER]}) is None
    assert difference({0: [], 1: []}) is None


@pytest.mark.parametrize(
    ("odd", "position", "theirs"),
    [
        ([GATHER, REDUCE, SCATTER], 0, "all-gather of bf16, 128 bytes, over 8 ranks"),
        ([REDUCE, ("all-gather", 4, "bf16", 128), SCATTER], 1, "all-gather of bf16, 128 bytes, over 4 ranks"),
        ([REDUCE, GATHER, ("reduce-scatter", 8, "f32", 1024)], 2, "reduce-scatter of f32, 1024 bytes"),
        ([REDUCE, GATHER, ("reduce-scatter", 8, "bf16", 512)], 2, "reduce-scatter of bf16, 512 bytes"),
        ([REDUCE, GATHER], 2, "nothing more"),
        ([REDUCE, GATHER, SCATTER, ("all-reduce", 0, "f32", 4)], 3, "all-reduce of f32, 4 bytes, over all ranks"),
    ],
)
def test_the_first_difference_is_named(odd: list[Item], position: int, theirs: str) -> None:
    usual = [REDUCE, GATHER, SCATTER]
    found = difference({4: usual, 5: usual, 6: odd, 7: usual})
    assert found is not None
    value, rule = found
    assert value == "rank 6 against rank 4, 5, 7"
    assert f"at position {position} " in rule
    assert f"rank 6 would run {theirs}" in rule


def agree() -> dict[str, Any] | None:
    """What a rank is told, of four in two stages; the last has another second collective."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    groups = [host_group(stage, seconds=30) for stage in ((0, 1), (2, 3))]
    second: Item = ("all-gather", 8, "f32", 256) if rank == 3 else GATHER
    try:
        agree_on("forward-backward", [REDUCE, second], groups[rank // 2])
    except DisagreementError as error:
        return {"message": str(error), "code": int(error.code), "rank": error.rank}
    return None


def test_over_gloo(tmp_path: Path) -> None:
    """Two stages of two ranks: the second disagrees, and only its ranks raise; both of them, within the minute."""
    said = run(Task("tests.neuron.test_agreement:agree", 4, seconds=60), tmp_path)
    assert [one is None for one in said] == [True, True, False, False]
    assert said[2] == said[3]
    assert said[2]["code"] == 3
    assert said[2]["rank"] == 2
    assert "rank 3 against rank 2" in said[2]["message"]
    assert (
        "at position 1 (of 2 and 2) rank 3 would run all-gather of f32, 256 bytes, over 8 ranks" in said[2]["message"]
    )
