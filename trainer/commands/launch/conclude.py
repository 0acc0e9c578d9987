"""The end of a launch: its exit code, one line on what made it, and exit.json where no worker could write it."""

from __future__ import annotations

import traceback
from pathlib import Path

from torch.distributed import DistError
from torch.distributed.elastic.agent.server.api import RunResult
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError, RendezvousTimeoutError

from trainer.commands.launch.agent import PatientAgent, say
from trainer.commands.launch.record import correct
from trainer.errors import ExitCode
from trainer.run.exit_json import CRASH


def conclude(agent: PatientAgent, outcome: RunResult | Exception | None, directory: Path | None) -> int:
    """The exit code of a launch whose agent has ended. outcome: None where torch says that the node was not needed."""
    if outcome is None:
        say("the run ended without this node: it came when all places were taken")
        return int(ExitCode.DONE)
    if isinstance(outcome, RunResult) and not outcome.is_failed():
        return int(ExitCode.DONE)
    verdict = agent.verdict
    if isinstance(outcome, Exception) and (verdict is None or not isinstance(outcome, RendezvousError | DistError)):
        return conclude_without_workers(outcome, agent.meeting.endpoint)
    assert verdict is not None  # of an attempt that has failed
    after = f"; no restart: {why_not_met(outcome, agent.meeting.endpoint)}" if isinstance(outcome, Exception) else ""
    say(f"{verdict.text}{after}; exit {verdict.code} ({verdict.name})")
    if directory is not None and agent.attempt is not None:
        correct(directory, verdict, agent.attempt)
    return verdict.code


def conclude_without_workers(error: Exception, endpoint: str) -> int:
    """The exit code where no worker has run, or where the launcher itself has failed."""
    if isinstance(error, RendezvousError | DistError):
        if "EADDRINUSE" in str(error) or "EADDRINUSE" in str(error.__cause__):
            say(f"the port of {endpoint} is in use; add --standalone on one node, or name another port")
            return int(ExitCode.CONFIG)
        say(f"{why_not_met(error, endpoint)}; exit {int(ExitCode.HANG)} ({ExitCode.HANG.name})")
        return int(ExitCode.HANG)
    if isinstance(error, OSError):  # the workers' program is missing, or the machine has no more processes
        say(f"the workers cannot be started: {error}")
        return int(ExitCode.CONFIG)
    traceback.print_exception(error)  # ours to mend
    return CRASH


def why_not_met(error: Exception, endpoint: str) -> str:
    """Why nodes did not meet at the rendezvous."""
    if isinstance(error, RendezvousTimeoutError):
        return "the other nodes did not come in time (--rdzv_conf join_timeout=SECONDS waits longer)"
    if isinstance(error, RendezvousClosedError):
        return "the launch on another node has ended for good"
    return f"the rendezvous at {endpoint} does not answer: the first node's launcher is not running, or not reachable"
