"""A directory built once, by the first process that needs it, and keyed by content.

Several processes may build at once, and a builder may be killed at any moment: it works in a temporary directory under
a file lock, which the kernel releases when the process ends, and one rename gives the directory its final name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.data.progress import Report
from trainer.errors import DataError, Problem
from trainer.files import sync

COMPLETE = "complete.json"
TEMPORARY = re.compile(r"\.tmp-(?P<key>.+)-\d+")
DIGEST_LIMIT = 64 << 20
"""Files up to this many bytes are verified by digest on every use, larger ones by size only: hashing runs at 1 GB/s."""


def build_once(cache_dir: Path, key: str, build: Callable[[Path], None], report: Report | None = None) -> Path:
    """Return cache_dir/key, built by `build(directory)` if it is missing or no longer matches its complete.json.

    `report` gets a line about a rebuild. Exceptions of `build` pass through, except that an OSError (disk full,
    read-only, no permission) becomes a DataError for data.cache_dir.
    """
    final = cache_dir / key
    say = report or (lambda line: None)
    if _is_complete(final):
        return final
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f"{key}.lock", say):
            if _is_complete(final):
                return final
            _remove_leftovers(cache_dir, key)
            if final.exists():
                say(f"cache: {final} is damaged; building it again")
                shutil.rmtree(final)
            _build(cache_dir, key, build)
    except OSError as error:
        raise unwritable(cache_dir, error) from error
    return final


def unwritable(cache_dir: Path, error: OSError) -> DataError:
    """The error for a disk that takes no more: full, read-only, somebody else's."""
    rule = f"cannot be written: {error.strerror or error}"
    remedy = "free space there, or set data.cache_dir to a directory that you may write to"
    return DataError(Problem("data.cache_dir", str(cache_dir), rule, remedy))


def _build(cache_dir: Path, key: str, build: Callable[[Path], None]) -> None:
    work = cache_dir / f".tmp-{key}-{os.getpid()}"
    work.mkdir()
    try:
        build(work)
        listing = {file.relative_to(work).as_posix(): _describe(file) for file in _files(work)}
        for file in _files(work):
            sync(file)
        (work / COMPLETE).write_text(json.dumps(listing, indent=1, sort_keys=True), encoding="utf-8")
        sync(work / COMPLETE)
        sync(work)
        os.rename(work, cache_dir / key)
        sync(cache_dir)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _is_complete(directory: Path) -> bool:
    try:
        listing = json.loads((directory / COMPLETE).read_text(encoding="utf-8"))
        return all(_describe(directory / name) == expected for name, expected in listing.items())
    except (OSError, ValueError, AttributeError):
        return False


def _describe(file: Path) -> list[object]:
    """Size in bytes, and the digest of a file of at most DIGEST_LIMIT bytes, else None."""
    size = file.stat().st_size
    digest = None if size > DIGEST_LIMIT else hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    return [size, digest]


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


@contextlib.contextmanager
def _locked(path: Path, say: Report, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock; yields whether it was acquired (always true when waiting)."""
    with open(path, "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say(f"cache: waiting for another process that builds {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True  # the lock is released when the file is closed or the process dies


def _remove_leftovers(cache_dir: Path, key: str) -> None:
    """Remove the temporary directories of dead builders. A live builder holds the lock of its key; we hold ours."""
    for leftover in cache_dir.glob(".tmp-*"):
        match = TEMPORARY.fullmatch(leftover.name)
        if match is None:
            continue
        if match["key"] == key:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        with _locked(cache_dir / f"{match['key']}.lock", lambda line: None, wait=False) as dead:
            if dead:
                shutil.rmtree(leftover, ignore_errors=True)
