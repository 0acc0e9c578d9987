"""What one rank does for all, without leaving the others in a collective when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trainer.backends.base import Backend
from trainer.errors import ElsewhereError, RunError

T = TypeVar("T")


def on_rank_zero(backend: Backend, action: Callable[[], T]) -> T | None:
    """Run ``action`` on rank 0 and return its result there, None elsewhere. Collective.

    When it raises a RunError, every rank raises: rank 0 the error itself, the others ElsewhereError with its code.
    """
    result, failure = None, None
    if backend.mesh.rank == 0:
        try:
            result = action()
        except RunError as error:
            failure = error
    code = backend.host_broadcast(int(failure.code) if failure is not None else 0)
    if failure is not None:
        raise failure
    if code:
        raise ElsewhereError(code)
    return result
