"""Documents that others like them come before: found over all sources, in memory that does not grow with them.

A first pass leaves some bytes of each text, in as many buckets as there is text for; what is alike is in one bucket.
Each bucket is looked through by itself: the first stays, in the order of sources, units and documents, and the places
of the others are left by units. What is dropped follows from the text alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.preparing import exact, near
from trainer.data.preparing.groups import read_group, write_groups
from trainer.data.preparing.reading import UnitText
from trainer.data.preparing.units import Piece, key_of
from trainer.data.progress import Advance
from trainer.files import write_json

BUCKET_BYTES, BUCKETS = 128 << 20, 4096
"""Text of a bucket; buckets at the most."""
NEAR_ROWS = 8
"""Near duplicates take about so many times the rows of exact ones, in as many more buckets."""


FOUND = ".duplicates"
"""Directory below the output, until all is done."""


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
        found = [read_group(path, self.unit, self.units, exact.PLACE) for path in paths]
        return sorted(set(np.concatenate(found).view("<u4")[:, 0].tolist()))


@dataclass
class Hashing:
    """One unit in the first pass. threshold: None for equal texts."""

    text: UnitText
    path: str
    bytes: int
    threshold: float | None
    buckets: int = 0

    def to_json(self) -> dict[str, Any]:
        """For a pipe."""
        return self.__dict__ | {"text": self.text.to_json()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Hashing:
        """What ``to_json`` made."""
        return Hashing(**value | {"text": UnitText.from_json(value["text"])})


class Duplicates:
    """Those of all sources of a preparation. digest: of all text that they are looked for in."""

    def __init__(self, output: Path, threshold: float | None = None) -> None:
        """threshold: share of what two texts have in common from which on they are alike; None for equal ones."""
        self.root = output / FOUND
        self._threshold = threshold
        self.digest = ""
        self._every: list[Hashing] = []
        self._first: dict[str, int] = {}
        """The number of each source's first unit among all."""

    def add(self, name: str, text: UnitText, pieces: list[list[Piece]]) -> None:
        """One more source. text: without its pieces, which are given by units."""
        self._first[name] = len(self._every)
        fields = {"source": text.source.__dict__, "root": text.root, "threshold": self._threshold}
        for number, some in enumerate(pieces):
            key = key_of(some, fields | {"unit": number})
            one = UnitText(text.source, text.root, some, text.bad_documents)
            size = sum(piece.bytes for piece in some)
            self._every.append(Hashing(one, str(self.root / f"{key}.hashes"), size, self._threshold))

    def settle(self) -> None:
        """All sources are known."""
        rows = 1 if self._threshold is None else NEAR_ROWS
        count = max(1, rows * sum(one.bytes for one in self._every) // BUCKET_BYTES)
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
        common = {"list": str(self._list), "buckets": count, "threshold": self._threshold}
        return [common | {"bucket": number} for number in missing]

    def drops(self, name: str, number: int) -> Drops:
        """What a unit of a source drops."""
        unit = self._first[name] + number
        return Drops(str(self._directory), self._every[0].buckets, len(self._every), unit)


def bucket_path(directory: Path, number: int) -> Path:
    """Where the places are that a bucket's texts are dropped from."""
    return directory / f"bucket-{number:04d}"


def hash_unit(task: Hashing, advance: Advance) -> None:
    """Leave what is compared of a unit's texts with their places, by buckets. Raises DataError, OSError."""
    path = Path(task.path)
    if task.threshold is None:
        contents = (text.encode() for text in _told(task.text.texts(), advance))
        groups, rows = exact.hashed(contents, task.buckets)
    else:
        texts = _told(task.text.texts(), advance)
        groups, rows = near.hashed(texts, task.buckets, task.threshold, _minima_of(path))
    write_groups(path, groups, rows, task.buckets)


def _told(texts: Iterable[str], advance: Advance) -> Iterator[str]:
    for text in texts:
        yield text
        advance(len(text))


def _minima_of(path: Path) -> Path:
    return path.with_suffix(".minima")


def resolve(task: dict[str, Any]) -> None:
    """Leave the places of the texts of a bucket that are dropped, by units. Raises OSError."""
    paths = [Path(path) for path in json.loads(Path(task["list"]).read_text(encoding="utf-8"))]
    width = exact.WIDTH if task["threshold"] is None else near.WIDTH
    read = [read_group(path, task["bucket"], task["buckets"], width) for path in paths]
    rows = np.concatenate(read)
    units = np.repeat(np.arange(len(read)), [len(some) for some in read])
    if task["threshold"] is None:
        dropped = exact.repeated(rows)
    else:
        dropped = near.near(rows, units, [_minima_of(path) for path in paths], task["threshold"])
    path = bucket_path(Path(task["list"]).parent, task["bucket"])
    write_groups(path, units[dropped], rows[dropped, -exact.PLACE :], len(read))
