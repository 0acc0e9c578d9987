"""How a submission ended, by what its runs and its engine have left."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.launchers.base import State, Status
from trainer.launchers.request import Request
from trainer.run.exit_json import read_exit


def ended(request: Request, since: float, code: int | None, reason: str) -> Status:
    """The end of a submission. The run's own word goes before the engine's: srun and kubectl know other codes.

    since: when it started, in seconds since 1970. code, reason: the engine's.
    """
    found = [record for run in request.runs if (record := read_exit(run, since))]
    codes = [int(record["code"]) for record in found]
    if len(codes) < len(request.tasks) or not codes:
        codes += [] if code is None else [code]
    worst = max(codes, default=None)
    titles = [str(record["title"]) for record in found if record["code"] == worst]
    return Status(State.ENDED, worst, next(iter(titles), reason))


def worst(statuses: Iterable[Status]) -> Status:
    """One status of several tasks: ended when all have, with the largest code."""
    found = list(statuses)
    for state in (State.RUNNING, State.PENDING, State.UNKNOWN):
        if any(status.state is state for status in found):
            counted = sum(status.state is State.ENDED for status in found)
            return Status(state, None, f"{counted} of {len(found)} have ended")
    return max(found, key=lambda status: status.code if status.code is not None else -1)
