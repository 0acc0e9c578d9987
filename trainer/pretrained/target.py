"""A directory that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.checkpoint.names import MANIFEST
from trainer.config.homes import expanded
from trainer.errors import ConfigError, Problem
from trainer.files import sync

KEY, SUFFIX = "DIRECTORY", ".exporting"


def place_of(given: str | Path) -> Path:
    """A path as the user gave it, whole: a ~ spelt out, links followed."""
    return Path(os.path.realpath(expanded(str(given))))  # a Path raises for an unknown user, and for a loop of links


def refuse_target(target: Path) -> None:
    """Raise ConfigError where a new directory cannot be. An empty one may be there."""
    if unknown := next((part for part in target.parts if part.startswith("~")), None):
        rule = f"is below a home directory that there is; {unknown} is nobody's"
        raise ConfigError(Problem(KEY, str(target), rule, "correct the name"))
    try:
        if any((parent / MANIFEST).is_file() for parent in (target, *target.parents)):
            rule = "is not inside a checkpoint, whose manifest would not name what is put there"
            raise ConfigError(Problem(KEY, str(target), rule, "name a directory elsewhere"))
        if any(target.parent.glob(f"*/{MANIFEST}")):
            rule = "is not among checkpoints, which a run lists and removes"
            raise ConfigError(Problem(KEY, str(target), rule, "name a directory elsewhere"))
        if target.exists() and not target.is_dir():
            raise ConfigError(Problem(KEY, str(target), "is a new directory; a file is there", "name another"))
        if target.is_dir() and (found := sorted(path.name for path in target.iterdir())):
            rule = f"is new or empty; it holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}"
            raise ConfigError(Problem(KEY, str(target), rule, "name another directory, or remove this one"))
    except OSError as error:
        raise _unwritable(target, error) from None


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, beside the target, which it becomes by one rename when the block ends.

    Nothing is left where the block fails; what a kill leaves, the next call clears away. Raises ConfigError.
    """
    target = place_of(target)
    refuse_target(target)
    temporary = target.with_name(f".{target.name}{SUFFIX}")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        lock = os.open(temporary, os.O_RDONLY)
        try:
            _alone(lock, target)
            _clear(temporary)
            try:
                yield temporary
                _commit(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                _remove_empty(made)
                raise
        finally:
            os.close(lock)
    except OSError as error:
        raise _unwritable(target, error) from error


def clear_abandoned(directory: Path) -> None:
    """Remove what exports into this directory left that were killed. Raises OSError."""
    for path in directory.glob(f".*{SUFFIX}"):
        lock = os.open(path, os.O_RDONLY)
        try:
            _alone(lock, path)
            shutil.rmtree(path)
        except ConfigError:
            continue  # one that goes on
        finally:
            os.close(lock)


def _alone(lock: int, target: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        rule = "no other export writes it now"
        raise ConfigError(Problem(KEY, str(target), rule, "wait for that one, or name another directory")) from None


def _clear(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _commit(temporary: Path, target: Path) -> None:
    for directory, _, files in os.walk(temporary):
        for name in files:
            sync(Path(directory) / name)
        sync(Path(directory))
    os.rename(temporary, target)
    sync(target.parent)


def _remove_empty(made: list[Path]) -> None:
    for directory in made:
        try:
            directory.rmdir()
        except OSError:
            return


def _unwritable(target: Path, error: OSError) -> ConfigError:
    rule = f"can be written ({error.strerror or error})"
    return ConfigError(Problem(KEY, str(target), rule, "make room or restore access, or name another directory"))
