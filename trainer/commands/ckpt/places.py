"""What a user points at: a run, its directory of checkpoints, or one checkpoint."""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoint.names import checkpoints, is_checkpoint_name
from trainer.errors import ConfigError, Problem
from trainer.run.directory import CHECKPOINTS


class CommandError(ConfigError):
    """A mistake in the command, or something that it cannot read or remove."""

    title = "the command cannot do that"


def directory_of(given: str) -> Path:
    """The directory of checkpoints of a run, or the one that was given. Raises CommandError where there are none."""
    path = Path(given).expanduser()
    for candidate in (path / CHECKPOINTS, path):
        if checkpoints(candidate):
            return candidate
    if not path.exists():
        raise CommandError(Problem("RUN", given, "exists", "give a run's directory, as runs/tiny"))
    rule = "is a run's directory, with a checkpoint in it (checkpoints/step-...)"
    raise CommandError(Problem("RUN", given, rule, "give a run that has saved, as runs/tiny"))


def checkpoint_of(given: str) -> Path:
    """One checkpoint; of a run its newest. Raises CommandError where there is none."""
    path = Path(given).expanduser()
    if is_checkpoint_name(path.resolve().name) and path.is_dir():
        return path.resolve()
    return checkpoints(directory_of(given))[0]
