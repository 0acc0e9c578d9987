"""Documents of equal text: found over all sources, in memory that does not grow with them.

A first pass leaves 128 bits of each text, in as many buckets as there is text for; equal texts are in one bucket. Each
bucket is looked through by itself: of equal ones the first stays, in the order of sources, units and documents, and the
places of the others are left by units. What is dropped follows from the text alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.preparing.groups import read_group, write_groups
from trainer.data.preparing.reading import UnitText
from trainer.data.preparing.units import Piece, key_of
from trainer.data.progress import Advance
from trainer.files import write_json

BUCKET_BYTES, BUCKETS = 128 << 20, 4096
"""Text of a bucket; buckets at the most."""
HASH, PLACE = 16, 4
"""Bytes of a text's hash, and of its place in its unit."""


@dataclass(frozen=True)
class Drops:
    """What a unit drops. unit: its number among those of all sources."""

    directory: str
    buckets: int
    units: int
    unit: int

    def read(self) -> list[int]:
        """Places of documents in the unit, in order."""
        paths = (bucket_path(Path(self.directory), number) for number in range(self.buckets))
        found = [read_group(path, self.unit, self.units, PLACE) for path in paths]
        return sorted(np.concatenate(found).view("<u4")[:, 0].tolist())


@dataclass
class Hashing:
    """One unit in the first pass."""

    text: UnitText
    path: str
    buckets: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {"text": self.text.to_json(), "path": self.path, "buckets": self.buckets, "bytes": self.bytes}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Hashing:
        """What ``to_json`` made."""
        return Hashing(**value | {"text": UnitText.from_json(value["text"])})


class Duplicates:
    """Those of all sources of a preparation. digest: of all text that they are looked for in."""

    def __init__(self, output: Path) -> None:
        self.root = output / ".duplicates"
        self.digest = ""
        self._every: list[Hashing] = []
        self._first: dict[str, int] = {}
        """The number of each source's first unit among all."""

    def add(self, name: str, text: UnitText, pieces: list[list[Piece]]) -> None:
        """One more source. text: without its pieces, which are given by units."""
        self._first[name] = len(self._every)
        fields = {"source": text.source.__dict__, "root": text.root}
        for number, some in enumerate(pieces):
            key = key_of(some, fields | {"unit": number})
            one = UnitText(text.source, text.root, some, text.bad_documents)
            self._every.append(Hashing(one, str(self.root / f"{key}.hashes"), 0, sum(piece.bytes for piece in some)))

    def settle(self) -> None:
        """All sources are known."""
        count = max(1, sum(one.bytes for one in self._every) // BUCKET_BYTES)
        for one in self._every:
            one.buckets = min(1 << (count - 1).bit_length(), BUCKETS)
        paths = [Path(one.path).name for one in self._every]
        self.digest = hashlib.blake2b(json.dumps(paths).encode(), digest_size=16).hexdigest()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_json(self._list, [one.path for one in self._every])

    @property
    def _directory(self) -> Path:
        return self.root / self.digest

    @property
    def _list(self) -> Path:
        return self._directory / "units.json"

    def hashings(self) -> list[Hashing]:
        """Units whose texts are not hashed yet."""
        return [one for one in self._every if not Path(one.path).is_file()]

    def buckets(self) -> list[dict[str, Any]]:
        """Buckets that are not looked through yet, for `resolve`."""
        count = self._every[0].buckets
        missing = (number for number in range(count) if not bucket_path(self._directory, number).is_file())
        return [{"list": str(self._list), "bucket": number, "buckets": count} for number in missing]

    def drops(self, name: str, number: int) -> Drops:
        """What a unit of a source drops."""
        unit = self._first[name] + number
        return Drops(str(self._directory), self._every[0].buckets, len(self._every), unit)


def bucket_path(directory: Path, number: int) -> Path:
    """Where the places are that a bucket's texts are dropped from."""
    return directory / f"bucket-{number:04d}"


def hash_unit(task: Hashing, advance: Advance) -> None:
    """Leave the hashes of a unit's texts with their places, by buckets. Raises DataError, OSError."""
    hashes = bytearray()
    for content in _contents(task.text):
        hashes += hashlib.blake2b(content, digest_size=HASH).digest()
        advance(len(content))
    found = np.frombuffer(hashes, np.uint8).reshape(-1, HASH)
    places = np.arange(len(found), dtype="<u4").view(np.uint8).reshape(-1, PLACE)
    groups = found[:, :2].copy().view(">u2")[:, 0].astype(np.int64) % task.buckets
    write_groups(Path(task.path), groups, np.concatenate([found, places], axis=1), task.buckets)


def _contents(text: UnitText) -> Iterator[bytes]:
    return (one.encode() for one in text.texts())


def resolve(task: dict[str, Any]) -> None:
    """Leave the places of the texts of a bucket that are dropped, by units. Raises OSError."""
    paths = json.loads(Path(task["list"]).read_text(encoding="utf-8"))
    read = [read_group(Path(path), task["bucket"], task["buckets"], HASH + PLACE) for path in paths]
    rows = np.concatenate(read)
    units = np.repeat(np.arange(len(read)), [len(some) for some in read])
    high, low = np.ascontiguousarray(rows[:, :HASH]).view("<u8").T
    order = np.lexsort((low, high))  # stable: equal ones stay in the order of units and documents
    same = np.zeros(len(rows), bool)
    same[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    dropped = np.sort(order[same])
    path = bucket_path(Path(task["list"]).parent, task["bucket"])
    write_groups(path, units[dropped], rows[dropped, HASH:], len(read))
