"""What one rank does for all, or all do for themselves, without leaving anybody in a collective when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trainer.backends.common.host import HostExchange
from trainer.backends.common.meeting import together
from trainer.errors import ElsewhereError, RunError

T = TypeVar("T")


def on_rank_zero(host: HostExchange, action: Callable[[], T]) -> T | None:
    """Run ``action`` on rank 0 and return its result there, None elsewhere. Collective.

    When it raises a RunError, every rank raises: rank 0 the error itself, the others ElsewhereError with its code.
    """
    result, failure = None, None
    if host.rank == 0:
        try:
            result = action()
        except RunError as error:
            failure = error
    code = host.broadcast(int(failure.code) if failure is not None else 0)
    if failure is not None:
        raise failure
    if code:
        raise ElsewhereError(code)
    return result


def on_every_rank(host: HostExchange, action: Callable[[], T], meet: Callable[[], object] | None = None) -> T:
    """Run ``action`` on every rank, as trainer.backends.common.meeting.together does. Collective.

    meet: waits for ranks that take long, before a collective does that has a timeout.
    """

    def exchange(mine: int) -> list[int]:
        if meet is not None:
            meet()
        return host.sum([mine if rank == host.rank else 0 for rank in range(host.size)])

    return together(action, exchange)
