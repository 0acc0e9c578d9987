"""A numbered log in a storage: one file an entry, written once. Who creates a number first has it; nobody locks.

This is all the agreement that jobs need. A reader sees whole entries only, and an entry never changes. A writer appends
right behind the last entry that it has seen; where another was faster it gets Conflict, reads again, and decides anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trainer.errors import DataError, Problem
from trainer.redact import redact
from trainer.storage.base import Exists, Missing, Storage, Stored

DIGITS = 8
Entry = Mapping[str, Any]
State = TypeVar("State")


class Conflict(Exception):
    """Another writer has appended meanwhile."""


class Damaged(DataError):
    """A file is not what was written there: a hand, a disk, or a newer version of this program."""

    title = "what was recorded cannot be read"

    def __init__(self, path: str, why: str) -> None:
        rule = f"is what this version has written ({why})"
        remedy = "restore it from a copy, or run the version that wrote it on every host"
        super().__init__(Problem("file", path, rule, remedy))


@dataclass(frozen=True)
class Log:
    """Entries under ``prefix``, which ends with a slash; numbered from 1 without gaps."""

    storage: Storage
    prefix: str

    def read(self) -> list[Entry]:
        """All entries in their order. Empty where nothing was ever written. Raises Damaged."""
        return [parsed(self.storage, stored) for stored in self._stored()]

    def fold(self, state: State, after: Callable[[State, Entry], State]) -> State:
        """What the entries come to, each taken by ``after``. Raises Damaged where it does not know one."""
        for number, entry in enumerate(self.read(), 1):
            try:
                state = after(state, entry)
            except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
                raise Damaged(self._path(number), f"{type(error).__name__}: {error}") from None
        return state

    def newest(self) -> tuple[int, Entry | None]:
        """Number and content of the last entry; 0 and None of an empty log."""
        stored = self._stored()
        return (len(stored), parsed(self.storage, stored[-1])) if stored else (0, None)

    def append(self, entry: Entry, after: int) -> None:
        """Write entry number ``after`` + 1. Secrets are left out. Raises Conflict, or StorageError."""
        body = json.dumps(redact(dict(entry)), indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            self.storage.write(self._path(after + 1), body.encode(), only_new=True)
        except Exists:
            raise Conflict from None

    def _stored(self) -> list[Stored]:
        try:
            found = [stored for stored in self.storage.list(self.prefix) if is_number(stored.path, self.prefix)]
        except Missing:
            return []
        return list(unbroken(found, self.prefix))

    def _path(self, number: int) -> str:
        return f"{self.prefix}{number:0{DIGITS}}.json"


def parsed(storage: Storage, stored: Stored) -> Entry:
    """A file's keys and values. Raises Damaged where it holds none."""
    try:
        found = json.loads(storage.read(stored, 0, stored.size))
    except ValueError as error:
        raise Damaged(stored.path, f"{type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise Damaged(stored.path, "it holds no keys")
    return found


def is_number(path: str, prefix: str) -> bool:
    """Whether a file is an entry, and nothing that somebody has put beside them."""
    name = path.removeprefix(prefix)
    return len(name) == DIGITS + 5 and name.endswith(".json") and name[:DIGITS].isdecimal()


def unbroken(found: Iterable[Stored], prefix: str) -> Iterable[Stored]:
    """Entries up to the first gap: what is behind one was written by nobody who has read this log."""
    for number, stored in enumerate(found, 1):
        if int(stored.path.removeprefix(prefix)[:DIGITS]) != number:
            return
        yield stored
