"""How long a pipeline's ranks wait for one another: a schedule replayed with given costs. No torch.

Published idle shares, p ranks, v stages a rank, m microbatches, no time for communication:
1f1b               (p - 1) / (m + p - 1)       Narayanan et al. 2021, arXiv:2104.04473, section 2.2.1
interleaved_1f1b   (p - 1) / (v m + p - 1)     the same, section 2.2.2 (both give bubble / ideal time there)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNIT_COSTS = {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}
"""Forward, full backward, its two halves: gradients of the inputs and of the weights. Each is as many FLOPs as F."""


class Action(NamedTuple):
    """One computation of a rank: kind is a key of UNIT_COSTS."""

    kind: str
    stage: int
    microbatch: int


Orders = Mapping[int, Sequence[Action | None]]
"""What each rank computes, in order. None: an idle time step, which matters to ``premature`` only."""


@dataclass(frozen=True)
class Replay:
    """makespan: from the first start to the last end. busy: time that each rank computes. Units: those of the costs."""

    makespan: float
    busy: dict[int, float]

    @property
    def idle_share(self) -> float:
        """Share of the ranks' time in which they wait, averaged over ranks."""
        return 1 - sum(self.busy.values()) / (len(self.busy) * self.makespan)


def idle_share(kind: str, pp: int, virtual_stages: int, microbatches: int) -> float:
    """The published idle share (see above) of a schedule; microbatches: a multiple of pp if stages are interleaved."""
    rounds = {"1f1b": 1, "interleaved_1f1b": virtual_stages, "interleaved_zero_bubble": 3 * virtual_stages}[kind]
    return (pp - 1) / (rounds * microbatches + pp - 1)


def needs(action: Action, stages: int) -> list[Action]:
    """What must have ended before an action starts, the rank's own order aside."""
    kind, stage, microbatch = action
    if kind == "F":
        return [Action("F", stage - 1, microbatch)] if stage else []
    if kind == "W":
        return [Action("I", stage, microbatch)]
    own = Action("F", stage, microbatch)
    if stage == stages - 1:
        return [own]
    # The next stage may have split its backward or not.
    return [own, Action(kind, stage + 1, microbatch)]


def replay(orders: Orders, stages: int, costs: Mapping[str, float] = UNIT_COSTS) -> Replay:
    """Start each action as soon as its needs have ended and its rank is free. Raises ValueError on a deadlock."""
    queues = {rank: [action for action in order if action is not None] for rank, order in orders.items()}
    done: dict[Action, float] = {}
    free, position = dict.fromkeys(queues, 0.0), dict.fromkeys(queues, 0)
    progress = True
    while progress:
        progress = False
        for rank, queue in queues.items():
            while position[rank] < len(queue):
                action = queue[position[rank]]
                before = needs(action, stages)
                if any(need not in done for need in before):
                    break
                start = max([free[rank], *(done[need] for need in before)])
                done[action] = free[rank] = start + costs[action.kind]
                position[rank] += 1
                progress = True
    stuck = {rank: queue[position[rank]] for rank, queue in queues.items() if position[rank] < len(queue)}
    if stuck:
        raise ValueError(f"the schedule waits for ever: {stuck}")
    busy = {rank: sum(costs[action.kind] for action in queue) for rank, queue in queues.items()}
    return Replay(max(free.values()), busy)


def premature(orders: Orders, stages: int) -> list[Action]:
    """Actions that a lock-step runtime starts before what they need has arrived.

    torch's runtime of the interleaved schedules exchanges results at the end of each time step (a place in the
    lists), so what an action needs from another rank has to stand in an earlier place.
    """
    step = {action: i for order in orders.values() for i, action in enumerate(order) if action is not None}
    return [action for action, i in step.items() if any(step.get(need, i) >= i for need in needs(action, stages))]


def in_step(orders: Orders, stages: int, costs: Mapping[str, float] = UNIT_COSTS) -> Replay:
    """As torch 2.9 runs the interleaved schedules: after each time step a rank waits for whom it sends to or receives
    from in that step, who may still be at a longer computation.
    """
    pp = len(orders)
    steps = max(len(order) for order in orders.values())
    free = dict.fromkeys(orders, 0.0)
    for step in range(steps):
        actions = {rank: order[step] for rank, order in orders.items() if step < len(order)}
        done = {rank: free[rank] + costs[action.kind] for rank, action in actions.items() if action is not None}
        ready = free | done
        free = dict(ready)
        for rank, action in actions.items():
            if action is None or action.kind == "W":
                continue
            peer_stage = action.stage + (1 if action.kind == "F" else -1)
            if 0 <= peer_stage < stages:
                peer = peer_stage % pp
                free[rank], free[peer] = max(free[rank], ready[peer]), max(free[peer], ready[rank])
    busy = {rank: sum(costs[action.kind] for action in order if action) for rank, order in orders.items()}
    return Replay(max(free.values()), busy)
