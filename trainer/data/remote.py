"""Sources that lie in S3: which objects they name, and how readers of files get at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from trainer.config.groups.data import DataConfig
from trainer.data.cache import unwritable
from trainer.storage.base import Denied, Missing, Storage, Stored
from trainer.storage.copies import Copies
from trainer.storage.open import storage_of
from trainer.storage.patterns import hidden, is_pattern

OBJECTS = "objects"
"""Below data.cache_dir."""
GB = 10**9


@dataclass
class _Reading:
    """Where this process keeps what it reads of S3, and what the paths that it was given name.

    A path is listed once: what a fingerprint was made of is what is read, or Replaced is raised.
    """

    copies: Copies
    listed: dict[str, list[Stored]] = field(default_factory=dict)


_READING: list[_Reading] = []


@contextmanager
def reading(config: DataConfig) -> Iterator[None]:
    """Sources may lie in S3 inside of this. Each process that reads sources enters it, a spawned one too."""
    copies = Copies(Path(config.cache_dir).expanduser() / OBJECTS, config.cache_gb * GB)
    _READING.append(_Reading(copies))
    try:
        yield
    finally:
        _READING.pop()


def copies() -> Copies:
    """Those of the configuration that is being read."""
    return _current().copies


def objects(path: str, key: str) -> list[Stored]:
    """The objects of a path: one, those below a prefix, or those that a pattern names, in the order of files' names.

    Hidden ones are left out. key: that problems are reported under. Raises StorageError; there may be none.
    """
    listed = _current().listed
    if path not in listed:
        listed[path] = _objects(storage_of(path, key), path)
    return listed[path]


@contextmanager
def as_file(stored: Stored, key: str) -> Iterator[Path]:
    """A local copy, for as long as it is read. Raises DataError."""
    kept = copies()
    with ExitStack() as held:
        with on_disk_of(kept):
            path = held.enter_context(kept.whole(storage_of(stored.path, key), stored))
        yield path


@contextmanager
def on_disk_of(kept: Copies) -> Iterator[None]:
    """An OSError inside is the local disk's: it becomes a DataError for data.cache_dir."""
    try:
        yield
    except OSError as error:
        raise unwritable(kept.directory.parent, error) from error


def _current() -> _Reading:
    if not _READING:
        raise RuntimeError("a source in S3 is read inside of trainer.data.remote.reading")
    return _READING[-1]


def _objects(storage: Storage, path: str) -> list[Stored]:
    if not path.endswith("/"):
        try:  # before anything else: an object's own name may hold brackets
            return [storage.stat(path)]
        except (Missing, Denied):  # who may not list is told that something missing is denied
            pass
    if is_pattern(path):
        return sorted(storage.glob(path), key=lambda stored: stored.name)
    above = path.rstrip("/")
    return [stored for stored in storage.list(f"{above}/") if not any(map(hidden, below(stored, above).parts))]


def below(stored: Stored, above: str) -> PurePath:
    """The name of an object below a prefix."""
    return PurePosixPath(stored.path[len(above) :].lstrip("/"))
