"""Before a graph runs, its ranks compare the graph's collectives over the host.

Ranks that issue different collectives, or the same in another order, wait for each other for ever. Compared on a gloo
group first, a difference is an error within seconds that names the ranks and the position.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from trainer.backends.common.host import HostExchange
from trainer.backends.neuron.graphs.hlo import Collective, Graph
from trainer.errors import ExitCode, Problem, RunError
from trainer.parallel.mesh import DATA, Mesh

Item = tuple[str, int, str, int]
"""Kind, ranks in a group (0: all), dtype, bytes of the rank's input."""

_REMEDY = "the same operations on every rank: no branch on the rank, no shape, dtype or unused parameter that differs"


class DisagreementError(RunError):
    """Ranks of a stage were about to run different collectives; all of them raise it."""

    code = ExitCode.CONFIG
    title = "ranks would wait for each other for ever"


def item(collective: Collective) -> Item:
    """What is compared. Replica groups are equal on all ranks by construction, so only their size is compared."""
    return collective.kind, collective.size, collective.dtype, collective.bytes


def comparing(mesh: Mesh, timeout_seconds: float) -> Callable[[str, Graph], None] | None:
    """What compares a graph's collectives over this pipeline stage's ranks; None with one rank. Collective."""
    if mesh.world == 1:
        return None
    mine: Any = None
    for ranks in mesh.groups("tp", *DATA):
        group = host_group(ranks, timeout_seconds)
        if mesh.rank in ranks:
            mine = group
    return lambda name, graph: agree_on(name, [item(collective) for collective in graph.collectives], mine)


def agree_on(name: str, mine: Sequence[Item], group: dist.ProcessGroup) -> None:
    """Compare ordered collectives over a host (gloo) group; all its ranks must call, or it times out.

    name: the graph's, for the message. Raises DisagreementError on every rank of the group: with the global ranks that
    differ from the majority, and the first position where they do.
    """
    ranks = dist.get_process_group_ranks(group)
    found = difference(dict(zip(ranks, _exchange(mine, group), strict=True)))
    if found is None:
        return
    value, rule = found
    error = DisagreementError(Problem(f"collectives of {name}", value, rule, _REMEDY))
    error.rank = ranks[0]
    raise error


def _exchange(mine: Sequence[Item], group: dist.ProcessGroup) -> list[list[Item]]:
    """Every rank's list, by rank in the group."""
    everyone = HostExchange(group).gather(json.dumps([list(entry) for entry in mine]).encode())
    return [[(kind, size, dtype, count) for kind, size, dtype, count in json.loads(one)] for one in everyone]


def difference(lists: dict[int, list[Item]]) -> tuple[str, str] | None:
    """Who differs and where, as (value, rule) of a Problem; None when all agree. lists: by global rank.

    The list that most ranks have counts as right; between equally frequent ones, that of the lowest rank.
    """
    counts = Counter(tuple(one) for one in lists.values())
    if len(counts) == 1:
        return None
    usual = max(counts, key=lambda one: (counts[one], -min(rank for rank in lists if tuple(lists[rank]) == one)))
    odd = {rank: one for rank, one in lists.items() if tuple(one) != usual}
    position = min(_first(one, usual) for one in odd.values())
    there = [rank for rank, one in odd.items() if _first(one, usual) == position]
    theirs, others = odd[there[0]], [rank for rank in lists if rank not in odd]
    value = f"rank {_list(list(odd))} against rank {_list(others)}"
    rule = (
        f"the same collectives in the same order on all ranks of a stage; at position {position} (of {len(theirs)} and "
        f"{len(usual)}) rank {_list(there)} would run {_show(theirs, position)}, the others {_show(usual, position)}"
    )
    return value, rule


def _first(one: Sequence[Item], other: Sequence[Item]) -> int:
    """The first position where two lists differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _show(items: Sequence[Item], position: int) -> str:
    if position >= len(items):
        return "nothing more"
    kind, size, dtype, count = items[position]
    return f"{kind} of {dtype}, {count} bytes, over {size or 'all'} ranks"


def _list(ranks: list[int], most: int = 8) -> str:
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return ", ".join(str(rank) for rank in ranks[:most]) + more


def host_group(ranks: Sequence[int], seconds: float) -> dist.ProcessGroup:
    """A gloo group over a stage's ranks; every process of the job calls this for every stage, in the same order.

    seconds: timeout for a rank that does not join the comparison.
    """
    group = dist.new_group(list(ranks), timeout=timedelta(seconds=seconds), backend="gloo")
    assert group is not None
    return group
