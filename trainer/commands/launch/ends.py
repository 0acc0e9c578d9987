"""How the workers of one attempt ended, and which of them ended it for all."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainer.errors import ExitCode

FINAL = {
    ExitCode.CONFIG, ExitCode.DATA, ExitCode.PREEMPTED, ExitCode.NONFINITE, ExitCode.NO_CHECKPOINT, ExitCode.GATE,
}  # fmt: skip
"""Never restarted: the same command would end the same way at once, or was asked to stop."""
NAMES = {int(code): code.name for code in ExitCode}


@dataclass(frozen=True)
class End:
    """A worker that ended with another code than 0."""

    rank: int
    code: int
    """As subprocess gives it: the exit code, or minus the number of the signal that killed it."""
    host: str
    ours: bool = False
    """A launcher killed it, because it did not end after another one had failed, or within its grace."""


@dataclass(frozen=True)
class Verdict:
    """What ended an attempt, in the words of the launch's last line and as its exit code."""

    code: int
    text: str
    rank: int | None = None
    """The worker that was the cause; None for a node that went away."""
    host: str | None = None
    seen_by_workers: bool = True
    """Whether the worker that was the cause has itself reported why. One that was killed cannot."""

    @property
    def name(self) -> str:
        """The code's name, as in exit.json."""
        return NAMES.get(self.code) or ("KILLED" if self.code > 128 else "CRASH")

    @property
    def may_be_a_consequence(self) -> bool:
        """Whether a worker ends like this when one that it waits for has gone."""
        return self.name in ("CRASH", "HANG") or self.code == 128 + signal.SIGABRT

    @property
    def final(self) -> bool:
        """Whether another attempt would end the same way."""
        return self.code in FINAL


def judge(ends: Sequence[End], handed_on: Collection[int] = (), several_nodes: bool = False) -> Verdict:
    """The verdict on an attempt. ends: not empty, in the order in which they were noticed, over all nodes.

    The first end counts, with what it may be the consequence of before it: a worker whose peer has died or given up
    crashes in its next collective, often before a peer that gave up has finished its report. Only SIGKILL is never a
    consequence. handed_on: signals that the launcher has passed to its workers, of which one that has no handlers yet
    dies; nothing is lost by it.
    """
    ended = [(end, ExitCode.PREEMPTED if -end.code in handed_on else end.code) for end in ends if not end.ours]
    if not ended:
        return _overdue(ends[0], several_nodes)
    cause, code = ended[0]
    if _may_follow(code):
        given_up = [pair for pair in ended if pair[1] in NAMES and pair[1] != ExitCode.HANG]
        killed = [pair for pair in ended if pair[1] == -signal.SIGKILL]
        cause, code = next(iter(given_up + killed), ended[0])
    who = f"rank {cause.rank}" + (f" on {cause.host}" if several_nodes else "")
    if code < 0:
        guess = " (out of memory?)" if code == -signal.SIGKILL else ""
        text = f"{who} was killed by {signal_name(-code)}{guess}"
        return Verdict(128 - code, text, cause.rank, cause.host, seen_by_workers=False)
    how = "crashed" if _is_crash(code) else f"ended first with {NAMES[code]}"
    return Verdict(int(code), f"{who} {how}", cause.rank, cause.host)


def in_order(ends: Sequence[End]) -> list[End]:
    """Ends that were noticed at the same moment, as they may have caused each other: killed, given up, crashed."""
    return sorted(ends, key=lambda end: 2 if _may_follow(end.code) else 0 if end.code < 0 else 1)


def signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_crash(code: int) -> bool:
    return code >= 0 and code not in NAMES


def _may_follow(code: int) -> bool:
    """Whether it may come from the end of another worker: NCCL's watchdog aborts where gloo raises an exception."""
    return _is_crash(code) or code == -signal.SIGABRT


def _overdue(end: End, several_nodes: bool) -> Verdict:
    """The launcher killed it, and nobody else had failed: it was asked to stop, and did not."""
    who = f"rank {end.rank}" + (f" on {end.host}" if several_nodes else "")
    text = f"{who} did not end within reliability.grace_seconds and was killed"
    return Verdict(128 + signal.SIGKILL, text, end.rank, end.host, seen_by_workers=False)
