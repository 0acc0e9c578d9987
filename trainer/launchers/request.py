"""What a launcher is asked to start: a command on so many nodes, where its files are kept, and how long it may take."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from trainer.trainium.environment import Variable

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?")
"""As Kubernetes has it, the strictest of all, with room for what an engine adds."""


@dataclass(frozen=True)
class Task:
    """One of several commands of a request, which differ in their last arguments: a sweep's."""

    arguments: tuple[str, ...]
    """After those of the request's command."""
    run: Path | None = None
    """As in Request."""


@dataclass(frozen=True)
class Request:
    """One submission. Raises ValueError for a name that an engine would refuse, and for one command on many nodes."""

    name: str
    """Of this submission and no other: the engine's own name of it."""
    command: tuple[str, ...]
    """A script of this project and its arguments: scripts/train.py, recipe=tiny, ..."""
    directory: Path
    """Where rendered files and logs are kept, and the end of a local job."""
    nodes: int = 1
    processes: int = 1
    """Of a node. 0: the command is started once, as no rank of a launch: to prepare, evaluate or export."""
    grace_seconds: float = 60.0
    """Between the signal to stop and the end."""
    limit_minutes: float | None = None
    run: Path | None = None
    """The run's directory, whose exit.json says how it ended."""
    environment: tuple[Variable, ...] = ()
    """Of the job, each with its reason: trainer.launchers.environment."""
    working_directory: Path = field(default_factory=Path.cwd)
    """Where the command is started: relative paths of the configuration begin there."""
    tasks: tuple[Task, ...] = ()
    """The runs of a sweep, for a launcher that takes several in one submission; empty for one run."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a submission: {NAME.pattern}")
        if not self.processes and self.nodes > 1:
            raise ValueError(f"a command that is started once, on {self.nodes} nodes")

    @property
    def runs(self) -> tuple[Path, ...]:
        """The directories of all its runs."""
        given = [task.run for task in self.tasks] if self.tasks else [self.run]
        return tuple(run for run in given if run is not None)


def name_of(text: str, suffix: str) -> str:
    """A name for a submission, from a text for people and what tells it from others.

    suffix: of letters, digits and dashes, at most 30 characters.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: 50 - len(suffix)].strip("-")
    return f"{plain}-{suffix}" if plain else suffix
