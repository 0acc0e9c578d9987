"""What an engine that starts jobs must do. Every method is a poll: none waits for a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from trainer.errors import ExitCode, Problem, RunError
from trainer.launchers.request import Request


class LaunchError(RunError):
    """The engine does not take the job, or does not answer."""

    code = ExitCode.CONFIG
    title = "the job cannot be submitted"


class State(Enum):
    """Where a submission stands."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """The engine knows it no longer, or does not answer."""


@dataclass(frozen=True)
class Status:
    """Where a submission stands, and how it ended."""

    state: State
    code: int | None = None
    """A worker's (docs/exit_codes.md), from the run's exit.json where this submission has left one; of several tasks
    the largest. None while it has not ended, and where nobody has seen how it did."""
    reason: str = ""
    """For people."""


class Launcher(Protocol):
    """Made with a LauncherConfig (trainer.launchers.making)."""

    takes_tasks: bool
    """Whether one submission may hold several runs (Request.tasks)."""

    def render(self, request: Request) -> dict[str, str]:
        """File name -> content: all that the engine is given. The same request gives the same files."""
        ...

    def problems(self, request: Request, files: Mapping[str, str]) -> list[Problem]:
        """What is wrong with a request and its rendered files, as far as can be told before it is submitted."""
        ...

    def submit(self, request: Request) -> str:
        """Keep the rendered files in the request's directory, submit, and return the id.

        Raises LaunchError where it is refused: also where there is a submission of this name.
        """
        ...

    def find(self, name: str) -> str | None:
        """The id of the submission of this name, live or lately ended: for whoever crashed before recording it.

        Raises LaunchError where the engine does not answer.
        """
        ...

    def status(self, id: str, request: Request) -> Status:
        """Where it stands."""
        ...

    def cancel(self, id: str) -> None:
        """Ask it to stop; nothing where it has ended. Raises LaunchError where the engine refuses."""
        ...

    def logs(self, id: str, request: Request) -> Iterator[str]:
        """The lines that it has printed so far, from the first on, without their ends."""
        ...


def poll_seconds(launcher: Launcher) -> float:
    """How long to wait at least before asking again: an engine across a network says so, others need not."""
    return float(getattr(launcher, "poll_seconds", 0.0))


def takes_tasks(launcher: Launcher) -> bool:
    """Whether one submission may hold several runs: a launcher of a user's own need not say so."""
    return bool(getattr(launcher, "takes_tasks", False))
