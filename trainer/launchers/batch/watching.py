"""Where a job of AWS Batch stands, and where its lines are, by what describe_jobs says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.launchers.base import State, Status
from trainer.launchers.ends import ended
from trainer.launchers.request import Request

STATES = {"STARTING": State.RUNNING, "RUNNING": State.RUNNING, "SUCCEEDED": State.ENDED, "FAILED": State.ENDED}
"""Before these a job waits: SUBMITTED, PENDING, RUNNABLE."""
MILLISECONDS = 1000


def status_of(job: Mapping[str, Any], main: Mapping[str, Any], request: Request) -> Status:
    """job: the whole. main: its main node, which is the same for a job of one container."""
    word = str(job["status"])
    state = STATES.get(word, State.PENDING)
    reason = job.get("statusReason") or word.lower()
    if state is not State.ENDED:
        attempts = len(job.get("attempts", []))
        return Status(state, None, f"{reason}, start {attempts + 1}" if attempts else reason)
    code = 0 if word == "SUCCEEDED" else _code(main)
    return ended(request, job["createdAt"] / MILLISECONDS, code, reason)


def _code(main: Mapping[str, Any]) -> int | None:
    """Of the last attempt; None where its machine was lost."""
    attempts = main.get("attempts") or [main]
    code = attempts[-1].get("container", {}).get("exitCode")
    return None if code is None else int(code)


def streams(job: Mapping[str, Any]) -> Iterator[str]:
    """Log streams of one container, attempt by attempt, each once."""
    containers = [*(attempt.get("container", {}) for attempt in job.get("attempts", [])), job.get("container", {})]
    yield from dict.fromkeys(found["logStreamName"] for found in containers if found.get("logStreamName"))
