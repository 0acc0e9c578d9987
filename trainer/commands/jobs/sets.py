"""Files of the sets that models are scored on: there, not empty, and the same for both models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.config.groups.job import JobSetConfig
from trainer.errors import DataError, Problem
from trainer.files import sha256


def check(sets: Sequence[JobSetConfig]) -> None:
    """Before anything is trained. Raises DataError with every path that nothing can be scored on."""
    if problems := [problem for index, one in enumerate(sets) for problem in _faults(f"sets.{index}.paths", one.paths)]:
        raise DataError(problems)


def content_of(paths: Sequence[str]) -> str:
    """SHA-256 over the files' contents, in the order of their names. Raises DataError."""
    files = [file for path in paths for file in _files(Path(path))]
    try:
        return hashlib.sha256("\n".join(map(sha256, files)).encode()).hexdigest()
    except OSError as error:
        rule = f"can be read ({error.strerror})"
        raise DataError(Problem("sets", error.filename, rule, "restore it, or access to it")) from None


def _faults(key: str, paths: Sequence[str]) -> Iterator[Problem]:
    for path in paths:
        if not Path(path).exists():
            yield Problem(key, path, "is a file or directory; it does not exist", "correct it, or restore the file")
        elif not any(file.stat().st_size for file in _files(Path(path))):
            yield Problem(key, path, "holds something to be scored on; it is empty", "restore it, or name another")


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
