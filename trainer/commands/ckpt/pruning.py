"""prune: remove old checkpoints by the rule of checkpoint.keep and keep_every. Without torch."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.checkpoint.directory import remove
from trainer.checkpoint.names import checkpoints, step_of
from trainer.checkpoint.sizes import in_bytes, size_of
from trainer.checkpoint.verify import fault
from trainer.commands.ckpt.places import CommandError, directory_of
from trainer.errors import Problem
from trainer.run.directory import CHECKPOINTS, LOCK


def prune(run: str, keep: int, keep_every: int, yes: bool) -> Iterator[str]:
    """Say what goes, and remove it if ``yes``.

    keep: how many of the newest that look sound stay. keep_every: steps that it divides stay too; 0: none. What does
    not look sound is left to its owner. Raises CommandError for a live run, whose own retention is at work.
    """
    if keep < 1 or keep_every < 0:
        key, value = ("--keep", keep) if keep < 1 else ("--keep-every", keep_every)
        raise CommandError(Problem(key, value, "1 or more" if keep < 1 else "0 or more", f"give {key} N"))
    directory = directory_of(run)
    with _alone(directory):
        found = checkpoints(directory)
        wrong = {path: fault(path, hashes=False) for path in found}
        sound = [path for path in found if wrong[path] is None]
        going = [path for path in sound[keep:] if not keep_every or step_of(path) % keep_every]
        size = 0
        for path in found[::-1]:
            what = "remove" if path in going else "keep" if path in sound else f"leave    not sound: {wrong[path]}"
            yield f"{path.name}  {what}"
        for path in going:
            size += size_of(path)
            if yes:
                _remove(path)
        done = "removed" if yes else "would go; give --yes to remove them"
        yield f"{len(going)} checkpoints, {in_bytes(size)}: {done}" if going else "nothing to remove"


def _remove(path: Path) -> None:
    try:
        remove(path)
    except OSError as error:
        rule = f"can be removed ({error.strerror})"
        raise CommandError(Problem("RUN", str(path), rule, "restore access, and give the command again")) from None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the run's lock, where it has one: two must not remove at once."""
    lock = directory.parent / LOCK
    if directory.name != CHECKPOINTS or not lock.exists():
        yield
        return
    with open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            rule = "no process trains it; a live run removes its own by checkpoint.keep"
            raise CommandError(Problem("RUN", str(directory.parent), rule, "wait for it, or stop it")) from None
        yield
