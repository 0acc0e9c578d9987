"""One attempt of a launch: its workers on all nodes, how long they may go on after a failure, and its end."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Collection, Sequence

from trainer.commands.launch.ends import End, Verdict, in_order, judge
from trainer.commands.launch.nodes import Nodes
from trainer.errors import ExitCode

SECONDS_AFTER_A_FAILURE = 15.0
"""How long the other workers may take to end by themselves: they notice a failure in their next collective."""
SECONDS_AFTER_GRACE = 5.0


class Attempt:
    """The workers of one attempt. ranks: the global ranks of this node's, in the order in which codes are given."""

    def __init__(self, nodes: Nodes, ranks: Sequence[int]) -> None:
        self.nodes, self.ranks = nodes, tuple(ranks)
        self.started_at = time.time()
        self._noted: set[int] = set()
        self._failed_at: float | None = None

    @property
    def ends(self) -> list[End]:
        """How workers ended with another code than 0, on all nodes."""
        return self.nodes.ends

    def note(self, codes: Sequence[int | None], killed: bool = False) -> bool:
        """Report the workers that have ended since the last time, to all nodes; whether others run.

        codes: of all workers here, as subprocess gives them. killed: this launcher has just killed those that ran.
        """
        ended = {rank: code for rank, code in zip(self.ranks, codes, strict=True) if code and rank not in self._noted}
        self._noted.update(ended)
        host = socket.gethostname()
        ends = [End(rank, code, host, killed and code == -signal.SIGKILL) for rank, code in ended.items()]
        if ends:
            self.nodes.tell(in_order(ends))
        self.nodes.beat()
        if self.ends and self._failed_at is None:
            self._failed_at = time.monotonic()
        return None in codes

    def had_their_time(self, grace_seconds: float) -> bool:
        """Whether the workers that still run should have ended, after a failure here or on another node."""
        if self._failed_at is None:
            return False
        codes = {end.code for end in self.ends}
        saving = ExitCode.PREEMPTED in codes and ExitCode.HANG not in codes
        return time.monotonic() - self._failed_at > (grace_seconds if saving else SECONDS_AFTER_A_FAILURE)

    def conclude(self, handed_on: Collection[int], endpoint: str) -> Verdict:
        """Find out with the other nodes what ended the attempt; no worker runs here any more.

        handed_on: signals that were passed to the workers. endpoint: of the rendezvous.
        """
        nodes = self.nodes
        lost = nodes.wait(SECONDS_AFTER_A_FAILURE + SECONDS_AFTER_GRACE)
        verdict = judge(nodes.ends, handed_on, nodes.count > 1)
        if (lost or nodes.gone) and verdict.may_be_a_consequence:
            host = f"the node that hosts the rendezvous, {endpoint}, went away: start all nodes again"
            text = f"{' and '.join(map(str, lost))} went away" if lost else host
            reported = verdict.code == ExitCode.HANG
            verdict = Verdict(int(ExitCode.HANG), text, seen_by_workers=reported)
        if not lost:
            nodes.part(SECONDS_AFTER_GRACE)
        return verdict
