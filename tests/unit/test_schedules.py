"""torch's schedules, replayed with unit costs, idle as long as the papers say; and never read what has not arrived."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from torch.distributed.pipelining import Schedule1F1B, schedules

from trainer.backends.native.pipeline.engine import INTERLEAVED, check_microbatches
from trainer.parallel.bubble import Action, Orders, idle_share, in_step, premature, replay

KINDS = {
    schedules.FORWARD: "F",
    schedules.FULL_BACKWARD: "B",
    schedules.BACKWARD_INPUT: "I",
    schedules.BACKWARD_WEIGHT: "W",
}
SIZES = [(pp, m * pp) for pp in (2, 4, 8) for m in (1, 2, 4)]


class Recorder:
    """Stands for a stage, and keeps what a schedule makes it compute."""

    submod = None
    has_backward = True

    def __init__(self, index: int, stages: int, pp: int) -> None:
        self.stage_index, self.num_stages = index, stages
        self.group_size, self.group_rank = pp, index % pp
        self.is_first, self.is_last = index == 0, index == stages - 1
        self.done: list[Action | None] = []

    def forward_one_chunk(self, microbatch: int, *_: Any) -> None:
        self.done.append(Action("F", self.stage_index, microbatch))

    def backward_one_chunk(self, microbatch: int, **_: Any) -> None:
        self.done.append(Action("B", self.stage_index, microbatch))

    def __getattr__(self, name: str) -> Any:
        """Everything else moves tensors: no operations, no effect."""
        assert name.startswith(("get_", "_get_", "_prepare_", "scale_grads")), name
        return lambda *_, **__: []


def executed_1f1b(pp: int, microbatches: int) -> Orders:
    """What Schedule1F1B really runs: its printable list is another thing (see below)."""
    orders = {}
    for rank in range(pp):
        stage: Any = Recorder(rank, pp, pp)
        schedule = Schedule1F1B(stage, microbatches, loss_fn=lambda output, target: output)
        schedule._step_microbatches(target_mbs=[None] * microbatches)
        orders[rank] = stage.done
    return orders


def listed(order: dict[int, list[Any]]) -> Orders:
    return {
        rank: [a and Action(KINDS[a.computation_type], a.stage_index, a.microbatch_index) for a in actions]
        for rank, actions in order.items()
    }


def interleaved(kind: str, pp: int, virtual_stages: int, microbatches: int) -> Orders:
    stages: Any = [Recorder(index, pp * virtual_stages, pp) for index in range(0, pp * virtual_stages, pp)]
    schedule = INTERLEAVED[kind](stages, microbatches, loss_fn=lambda output, target: output)
    return listed(schedule.pipeline_order)


@pytest.mark.parametrize(("pp", "microbatches"), [*SIZES, (4, 5), (4, 7), (8, 13)])
def test_1f1b_idles_as_published(pp: int, microbatches: int) -> None:
    """Narayanan et al. 2021: bubble / ideal time (p - 1) / m."""
    found = replay(executed_1f1b(pp, microbatches), pp)
    assert found.idle_share == pytest.approx((pp - 1) / (microbatches + pp - 1), rel=1e-12)
    assert found.idle_share == pytest.approx(idle_share("1f1b", pp, 1, microbatches), rel=1e-12)


@pytest.mark.parametrize("virtual_stages", [2, 3])
@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
def test_interleaved_1f1b_idles_as_published(pp: int, microbatches: int, virtual_stages: int) -> None:
    """Narayanan et al. 2021: bubble / ideal time (p - 1) / (v m)."""
    found = replay(interleaved("interleaved_1f1b", pp, virtual_stages, microbatches), pp * virtual_stages)
    assert found.idle_share == pytest.approx((pp - 1) / (virtual_stages * microbatches + pp - 1), rel=1e-12)
    assert found.idle_share == pytest.approx(idle_share("interleaved_1f1b", pp, virtual_stages, microbatches))


@pytest.mark.parametrize("virtual_stages", [1, 2, 3])
@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
def test_zero_bubble_idles_as_published(pp: int, microbatches: int, virtual_stages: int) -> None:
    """Qi et al. 2023, ZB-H1: a rank waits (p - 1) (T_F + T_B - T_W), where T_B is the input's gradient: p - 1 here.

    With v stages a rank the times are those of one of its stages, so the rank computes 3 v m.
    """
    found = replay(interleaved("interleaved_zero_bubble", pp, virtual_stages, microbatches), pp * virtual_stages)
    assert found.makespan - found.busy[0] == pp - 1
    share = (pp - 1) / (3 * virtual_stages * microbatches + pp - 1)
    assert found.idle_share == pytest.approx(share, rel=1e-12)
    assert idle_share("interleaved_zero_bubble", pp, virtual_stages, microbatches) == pytest.approx(share)


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
def test_in_step_with_the_neighbours(pp: int, microbatches: int) -> None:
    """torch's runtime exchanges after each place of the lists. The zero bubble loses nothing by that, because its
    actions take equally long; interleaved 1F1B, with backwards of 2 beside forwards of 1, waits one unit more than the
    published 3 (p - 1): measured, and no paper's.
    """
    orders = interleaved("interleaved_zero_bubble", pp, 2, microbatches)
    found = in_step(orders, 2 * pp)
    assert found.makespan - found.busy[0] == pp - 1
    orders = interleaved("interleaved_1f1b", pp, 2, microbatches)
    found = in_step(orders, 2 * pp)
    assert found.makespan - found.busy[0] == 3 * (pp - 1) + 1


def test_no_schedule_that_we_allow_reads_what_has_not_arrived() -> None:
    allowed = 0
    for kind, pp, virtual_stages, m in product(INTERLEAVED, (2, 3, 4), (1, 2, 3), range(1, 17)):
        try:
            check_microbatches(kind, pp, m)
        except ValueError:
            continue
        allowed += 1
        assert premature(interleaved(kind, pp, virtual_stages, m), pp * virtual_stages) == []
    assert allowed > 100


@pytest.mark.parametrize("kind", INTERLEAVED)
def test_torch_lets_few_microbatches_through(kind: str) -> None:
    """The reason for check_microbatches. If this fails, torch has mended it."""
    assert premature(interleaved(kind, 4, 2, 3), 8)
    with pytest.raises(ValueError, match="needs at least 4 microbatches"):
        check_microbatches(kind, 4, 3)


def test_rounds() -> None:
    """5 microbatches over 2 ranks are 2 rounds of 2, and one left over; over 4 ranks they are one round."""
    with pytest.raises(ValueError, match="2 rounds"):
        check_microbatches("interleaved_1f1b", 2, 5)
    check_microbatches("interleaved_1f1b", 4, 5)
    check_microbatches("1f1b", 2, 5)


def test_torch_lists_another_1f1b_than_it_runs() -> None:
    """Its list numbers the last rank's microbatches from 1: nothing may be concluded from it in torch 2.9."""
    stage: Any = Recorder(0, 2, 2)
    order = Schedule1F1B(stage, 4, loss_fn=lambda output, target: output).pipeline_order
    assert order is not None
    last = [action for action in listed(order)[1] if action is not None and action.kind == "F"]
    assert [action.microbatch for action in last] == [1, 2, 3, 4]
    run = [action for action in executed_1f1b(2, 4)[1] if action is not None and action.kind == "F"]
    assert [action.microbatch for action in run] == [0, 1, 2, 3]


def test_a_deadlock_is_named() -> None:
    """Each rank waits for the other."""
    orders = {0: [Action("B", 0, 0), Action("F", 0, 0)], 1: [Action("F", 1, 0), Action("B", 1, 0)]}
    with pytest.raises(ValueError, match="waits for ever"):
        replay(orders, 2)
