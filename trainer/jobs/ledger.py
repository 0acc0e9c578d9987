"""All occurrences of all jobs, in a directory or under a prefix of S3.

LEDGER/JOB/
  slots/SLOT/00000001.json ...   what has happened to an occurrence (log.py, events.py)
  open/SLOT                      while it is not closed: a tick looks at these, however many have ended
  expanded/SLOT                  no cron slot up to this one has to be expanded again
  decided/SLOT                   what the latest occurrences came to, for "no new data" and for jobs after this one
  claims/NAME                    who was first to see new data

The last three are written once each and only the greatest name counts, so that a writer who was asleep does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainer.jobs.events import Occurrence, after
from trainer.jobs.log import Damaged, Log, parsed
from trainer.storage.base import Exists, Missing, Storage, Stored
from trainer.storage.open import storage_of

KEPT = 50
"""Names of expanded/ and decided/ that stay: a writer who is that far behind has no lease any more."""


SLOT = re.compile(r"\d{8}t\d{6}z(-[a-z]+)*")
"""Other names are of files that somebody has put there."""


@dataclass(frozen=True)
class Ledger:
    """One ledger. root: without a slash at its end."""

    storage: Storage
    root: str

    @classmethod
    def at(cls, place: str, key: str = "--ledger") -> Ledger:
        """A directory or s3://bucket/prefix. key: what problems are reported under."""
        return cls(storage_of(place, key), place.rstrip("/"))

    def log(self, job: str, slot: str) -> Log:
        """Of one occurrence."""
        return Log(self.storage, f"{self.root}/{job}/slots/{slot}/")

    def occurrence(self, job: str, slot: str) -> Occurrence:
        """As it stands now. count = 0: there is no such. Raises Damaged where an entry is none."""
        return self.log(job, slot).fold(Occurrence(job, slot), after)

    def open_slots(self, job: str) -> list[str]:
        """Marks of occurrences that are not closed, the earliest first."""
        return self._names(f"{self.root}/{job}/open/")

    def opened(self, job: str) -> list[Occurrence]:
        """Occurrences that have a mark, the earliest first; without those whose maker was killed behind it."""
        found = (self.occurrence(job, slot) for slot in self.open_slots(job))
        return [one for one in found if one.count]

    def slots(self, job: str) -> list[str]:
        """All occurrences, the earliest first: no entry of them is looked at."""
        try:
            names = self.storage.children(f"{self.root}/{job}/slots/")
        except Missing:
            return []
        return sorted(name for name in names if SLOT.fullmatch(name))

    def create(self, job: str, slot: str, due: Mapping[str, Any]) -> bool:
        """Make an occurrence, unless there is one. Whether it was this call that made it; either way it is open after.

        The mark comes first: whoever is killed after it leaves an occurrence that the next tick makes anew.
        """
        self.storage.write(f"{self.root}/{job}/open/{slot}", b"open\n")
        try:
            path = f"{self.log(job, slot).prefix}00000001.json"
            self.storage.write(path, json.dumps(due, indent=1, sort_keys=True).encode(), only_new=True)
        except Exists:
            return False
        return True

    def close(self, job: str, slot: str) -> None:
        """No tick looks at it any more."""
        self.storage.delete(f"{self.root}/{job}/open/{slot}")

    def expanded(self, job: str) -> str | None:
        """The latest cron slot that has been expanded."""
        return max(self._names(f"{self.root}/{job}/expanded/"), default=None)

    def has_expanded(self, job: str, slot: str) -> None:
        """This slot and all before it are occurrences by now."""
        self._greatest(f"{self.root}/{job}/expanded/", slot, b"expanded\n")

    def decided(self, job: str) -> dict[str, Mapping[str, Any]]:
        """What the latest occurrences that were decided came to, by slot, the earliest first."""
        prefix = f"{self.root}/{job}/decided/"
        found = {}
        for stored in self._list(prefix):
            slot = stored.path.removeprefix(prefix)
            with suppress(Missing):  # thinned out meanwhile
                if SLOT.fullmatch(slot):
                    found[slot] = parsed(self.storage, stored)
        return found

    def has_decided(self, job: str, slot: str, record: Mapping[str, Any]) -> None:
        """Keep what an occurrence came to."""
        self._greatest(f"{self.root}/{job}/decided/", slot, json.dumps(record, sort_keys=True).encode())

    def claim(self, job: str, name: str, slot: str) -> str:
        """Whoever asks first under a name decides which slot it stands for."""
        path = f"{self.root}/{job}/claims/{name}"
        try:
            self.storage.write(path, slot.encode(), only_new=True)
        except Exists:
            stored = self.storage.stat(path)
            slot = self.storage.read(stored, 0, stored.size).decode(errors="replace")
            if not SLOT.fullmatch(slot):
                raise Damaged(path, "it holds no slot") from None
        return slot

    def _greatest(self, prefix: str, name: str, body: bytes) -> None:
        self.storage.write(f"{prefix}{name}", body)
        for old in self._names(prefix)[:-KEPT]:
            self.storage.delete(f"{prefix}{old}")

    def _names(self, prefix: str) -> list[str]:
        names = (stored.path.removeprefix(prefix) for stored in self._list(prefix))
        return [name for name in names if SLOT.fullmatch(name)]

    def _list(self, prefix: str) -> Iterator[Stored]:
        try:
            yield from self.storage.list(prefix)
        except Missing:
            return
