"""Ranks that meet before they have a process group: the mistake that one of them finds ends them all, and at once."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from trainer.config.groups.reliability import ReliabilityConfig
from trainer.errors import ElsewhereError, RunError
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.backends.common.peers import Peers

T = TypeVar("T")
SECONDS = ReliabilityConfig.setup_seconds
"""Longest that ranks wait for one of them."""
_numbers = itertools.count()
"""Of this process's exchanges: each has a topic of its own, and ranks have theirs in the same order."""


def together(action: Callable[[], T], exchange: Callable[[int], Sequence[int]]) -> T:
    """Run ``action`` on every rank and return its result. Collective.

    When ``action`` raises a RunError on some, every rank raises: those their own error, the others ElsewhereError. The
    first of the ranks that failed reports in full. exchange: a rank's code, 0 for none -> those of all, by rank.
    """
    result, failure = None, None
    try:
        result = action()
    except RunError as error:
        failure = error
    codes = exchange(0 if failure is None else int(failure.code))
    first = next((rank for rank, code in enumerate(codes) if code), None)
    if failure is not None:
        failure.rank = first or 0
        raise failure
    if first is not None:
        raise ElsewhereError(codes[first], first)
    return cast(T, result)


class Meeting:
    """The ranks of a launch, over its store. peers: None: the only process, which meets nobody and imports no torch."""

    def __init__(self, peers: Peers | None = None) -> None:
        self.peers = peers

    @classmethod
    def join(cls, world: World) -> Meeting:
        """Raises HangError where the launch's store does not answer."""
        if world.size == 1:
            return cls()
        from trainer.backends.common.peers import Peers

        return cls(Peers.join(world, SECONDS))

    def everyone(self, mine: str, seconds: float = SECONDS) -> list[str]:
        """Every rank's text, by rank. Collective. Raises HangError, which names who did not come within ``seconds``."""
        if (peers := self.peers) is None:
            return [mine]
        number = next(_numbers)
        # The first has the name by which Peers knows where each rank runs.
        topic = f"exchange {number}" if number else "launch"
        found = peers.everyone(topic, mine, seconds, lambda line: print(line, file=sys.stderr, flush=True))
        # Rank 0 may serve the store, and may be about to end: it stays until all have read.
        peers.post(f"{topic}/read/{peers.rank}", "")
        for rank in range(peers.size if peers.rank == 0 else 0):
            peers.wait(f"{topic}/read/{rank}", f"{topic}/read", seconds)
        return found

    def each(self, action: Callable[[], T], seconds: float = SECONDS) -> T:
        """Run ``action`` on every rank, as ``together`` does."""
        return together(action, lambda code: [int(one) for one in self.everyone(str(code), seconds)])

    def first(self, action: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """What ``action`` gives on rank 0, as JSON, on every rank. Collective; an error there is one everywhere."""
        if self.peers is None:
            return action()
        value: Any = None

        def act() -> None:
            nonlocal value
            if self.peers is not None and self.peers.rank == 0:
                value = action()

        self.each(act, seconds)
        return json.loads(self.everyone(json.dumps(value))[0])
