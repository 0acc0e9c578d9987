"""A numbered log in a storage: one file an entry, written once. Who creates a number first has it; nobody locks.

This is all the agreement that jobs need. A reader sees whole entries only, and an entry never changes. A writer appends
right behind the last entry that it has seen; where another was faster it gets Conflict, reads again, and decides anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.redact import redact
from trainer.storage.base import Exists, Missing, Storage, Stored

DIGITS = 8
Entry = Mapping[str, Any]


class Conflict(Exception):
    """Another writer has appended meanwhile."""


@dataclass(frozen=True)
class Log:
    """Entries under ``prefix``, which ends with a slash; numbered from 1 without gaps."""

    storage: Storage
    prefix: str

    def read(self) -> list[Entry]:
        """All entries in their order. Empty where nothing was ever written."""
        return [self._parsed(stored) for stored in self._stored()]

    def newest(self) -> tuple[int, Entry | None]:
        """Number and content of the last entry; 0 and None of an empty log."""
        stored = self._stored()
        return (len(stored), self._parsed(stored[-1])) if stored else (0, None)

    def append(self, entry: Entry, after: int) -> None:
        """Write entry number ``after`` + 1. Secrets are left out. Raises Conflict, or StorageError."""
        body = json.dumps(redact(dict(entry)), indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            self.storage.write(f"{self.prefix}{after + 1:0{DIGITS}}.json", body.encode(), only_new=True)
        except Exists:
            raise Conflict from None

    def _stored(self) -> list[Stored]:
        try:
            found = [stored for stored in self.storage.list(self.prefix) if is_number(stored.path, self.prefix)]
        except Missing:
            return []
        return list(unbroken(found, self.prefix))

    def _parsed(self, stored: Stored) -> Entry:
        entry: Entry = json.loads(self.storage.read(stored, 0, stored.size))
        return entry


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
