"""A file that a command is asked to write its result to: looked at before the work, written when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, Problem
from trainer.files import temporary_of, write_json


def refuse_target(path: Path, key: str) -> None:
    """Raise ConfigError where it could not be written: nothing is worked out that cannot be kept."""
    try:
        if (problem := _problem(path, key)) is not None:
            raise ConfigError(problem)
    except (OSError, ValueError) as error:
        raise _unwritten(path, key, error) from None


def _problem(path: Path, key: str) -> Problem | None:
    target = path.resolve()
    if path.is_dir():
        return Problem(key, str(path), "is a file; it is a directory", "name a file in it")
    # A rename takes a device's or a pipe's place, whatever it was.
    if path.exists() and not path.is_file():
        return Problem(key, str(path), "is a regular file, or not there yet", "name another")
    if not target.parent.is_dir():
        rule = "is in a directory that exists"
        return Problem(key, str(path), rule, "make the directory, or correct the path")
    # Permissions, read-only disks, names that are too long: the system itself says whether it would take one.
    temporary_of(target).touch(exist_ok=False)
    temporary_of(target).unlink()
    return None


def write_result(path: Path, value: Any, key: str) -> None:
    """Whole or not at all; where a link leads. Raises ConfigError."""
    try:
        write_json(path.resolve(), value)
    except (OSError, ValueError) as error:
        raise _unwritten(path, key, error) from None


def _unwritten(path: Path, key: str, error: OSError | ValueError) -> ConfigError:
    why = getattr(error, "strerror", None) or str(error)
    return ConfigError(Problem(key, str(path), f"can be written ({why})", "restore access, or name another"))
