"""One source on its way to a directory of shards: which of its units are there, and what they add up to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.chat.settings import ChatSettings
from trainer.data.paths import source_error
from trainer.data.preparing import shards
from trainer.data.preparing.duplicates import Duplicates
from trainer.data.preparing.manifest import INPUTS, MANIFEST, SKIPPED, inputs_listing, manifest_of, write_skipped
from trainer.data.preparing.passed_over import PassedOver
from trainer.data.preparing.reading import UnitText
from trainer.data.preparing.shards import Shard
from trainer.data.preparing.unit import Result, Task
from trainer.data.preparing.units import Inputs, Piece, key_of, units
from trainer.data.readers.found import Aside, Bad, Place, Reason
from trainer.data.readers.rows import field_of, without_field
from trainer.data.tokenizing import HELDOUT, TRAIN, Reference, figures_of
from trainer.errors import DataError, Problem
from trainer.files import write_atomically, write_json

WORK, SHARDS = ".work", "shards"
SUFFIXES = (".bin", ".idx", ".mask")
OURS = re.compile(rf"\.?({TRAIN}|{HELDOUT})-\d+\.(bin|idx|mask)(\.\d+\.tmp)?")
"""Files of shards, and those that shards are before they are whole."""


@dataclass
class SourceWork:
    """A source whose manifest is not written yet. settings: as `manifest.settings_of` has them."""

    source: SourceConfig
    directory: Path
    settings: dict[str, Any]
    inputs: Inputs
    pieces: list[list[Piece]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    results: dict[int, Result] = field(default_factory=dict)
    reference: Reference = field(default_factory=Reference)
    duplicates: Duplicates | None = None
    chat: ChatSettings | None = None
    _next: int = 0
    """The first unit whose reference documents are not counted yet."""

    def begin(self) -> None:
        """Cut it into units, and find those of an earlier run. Raises DataError for a directory of other files."""
        if self.directory.exists() and not self.work.exists() and any(self.directory.iterdir()):
            rule = "is new, or a preparation has begun in it; it holds other files"
            raise DataError(Problem("--output", str(self.directory), rule, "choose another --output"))
        self.pieces = units(self.inputs)
        fields = self.settings | {"options": self.source.options, "_target_": self.source._target_}
        fields |= {} if self.inputs.files else {"paths": self.source.paths}
        fields |= {} if self.duplicates is None else {"duplicates": self.duplicates.digest}
        self.keys = [key_of(pieces, fields) for pieces in self.pieces]
        self.work.mkdir(parents=True, exist_ok=True)
        names = {SHARDS, *(self.unit(number).name for number in range(len(self.pieces)))}
        for path in self.work.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)  # of a worker that was killed, or of other inputs
        for number, key in enumerate(self.keys):
            result = Result.read(self.unit(number), key)
            if result is not None and (result.compressed or self.reference.full):
                self.done(number, result)

    @property
    def work(self) -> Path:
        """What is removed at the end."""
        return self.directory / WORK

    def unit(self, number: int) -> Path:
        """A unit's directory."""
        return self.work / f"unit-{number:06d}"

    @property
    def removed(self) -> int:
        """Documents that others like them had come before."""
        return sum(one.removed for one in self.results.values())

    @property
    def unknown(self) -> float:
        """The share of the tokens so far that stand for text without a token."""
        done = [one.tokenized for one in self.results.values()]
        tokens = sum(one.train.tokens + one.heldout.tokens for one in done)
        return sum(one.unknown for one in done) / max(1, tokens)

    def missing(self) -> Iterator[int]:
        """Units that are still to be prepared."""
        return (number for number in range(len(self.pieces)) if number not in self.results)

    def bytes_of(self, number: int) -> int:
        """Of a unit's inputs."""
        return sum(piece.bytes for piece in self.pieces[number])

    def task(self, number: int) -> Task:
        """What a worker is told of a unit, now that those before it are known as far as they are."""
        return Task(
            text=UnitText(self.source, self.inputs.root, self.pieces[number], self.settings["bad_documents"]),
            fraction=self.settings["heldout_fraction"],
            directory=self.unit(number),
            key=self.keys[number],
            compress=not self.reference.full,
            drops=None if self.duplicates is None else self.duplicates.drops(self.source.name, number),
            chat=None if self.chat is None else self.chat.to_json(),
        )

    def finish(self, number: int) -> None:
        """A worker has prepared a unit."""
        self.done(number, self._stored(number))

    def done(self, number: int, result: Result) -> None:
        """Count a unit. What may be long of it stays on the disk."""
        self.results[number] = replace(result, digests={}, passed_over=PassedOver())
        while self._next in self.results:
            for row in self.results[self._next].tokenized.reference:
                self.reference.add(row)
            self._next += 1

    def shards(self, limit: int) -> list[Shard]:
        """All shards; every unit is there. limit: tokens of a shard. Raises DataError for a source without text."""
        self._check_columns()
        every = [one.tokenized.train.documents + one.tokenized.heldout.documents for one in self.results.values()]
        if not any(every) and not self.removed:
            raise self._policy().nothing(self.source)
        found = [(self.unit(number), key) for number, key in enumerate(self.keys)]
        size = self.settings["tokenizer"]["size"]
        work = self.work / SHARDS
        work.mkdir(exist_ok=True)
        masked = self.chat is not None
        return [
            shard
            for part in (TRAIN, HELDOUT)
            for shard in shards.plan(part, found, limit, self.directory, work, size, masked)
        ]

    def conclude(self, written: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the manifest and what goes with it; remove the units. written: the shards' records, in order."""
        names = {f"{shard['prefix']}{suffix}" for shard in written for suffix in SUFFIXES}
        for path in self.directory.iterdir():
            if OURS.fullmatch(path.name) and path.name not in names:
                path.unlink()  # of an earlier run with other shards, or of one that was killed
        digests = (digest for number in range(len(self.pieces)) for digest in self._stored(number).digests.values())
        listing = inputs_listing(self.inputs, digests)
        write_atomically(self.directory / INPUTS, listing)
        figures = figures_of((result.tokenized for result in self._ordered()), self._policy().skipped)
        manifest = manifest_of(self.source.name, self.settings, self.inputs, listing, figures, written, self.removed)
        write_json(self.directory / MANIFEST, manifest)
        shutil.rmtree(self.work)
        return manifest

    def _ordered(self) -> list[Result]:
        return [self.results[number] for number in range(len(self.pieces))]

    def _stored(self, number: int) -> Result:
        result = Result.read(self.unit(number), self.keys[number])
        if result is None:
            raise RuntimeError(f"{self.unit(number)} does not hold what its worker has said")
        return result

    def _policy(self) -> Any:
        path = self.directory / SKIPPED
        return write_skipped(path, self._passed_over(), self.source, self.inputs.root)

    def _passed_over(self) -> Iterator[tuple[Bad | Aside, int]]:
        """All, in order, with lines counted in whole files."""
        lines: dict[str, int] = {}
        for number in range(len(self.pieces)):
            result = self._stored(number)
            before = dict(lines)
            for path, part in result.parts:
                lines[path] = lines.get(path, 0) + part.lines
            for one in result.passed_over.kept:
                yield one.found(self.inputs.root, before.get(one.file, 0)), 1
            for aside, words, count in result.passed_over.beyond():
                place = Place(str(self.unit(number)))
                yield (Aside(words, place) if aside else Bad(Reason(words, "", ""), place)), count

    def _check_columns(self) -> None:
        """Raises DataError for a file in no part of which a row has the text field."""
        columns: dict[str, list[str]] = {}
        seen = set()
        for result in self._ordered():
            for path, part in result.parts:
                seen |= {path} if part.seen else set()
                columns.setdefault(path, part.columns or [])
                columns[path] = columns[path] or part.columns or []
        for path, names in columns.items():
            if names and path not in seen:
                error = without_field(field_of(self.source), names)
                rule = f"{error.rule} ({self.inputs.root}/{path})"
                raise source_error(self.source, error.field, getattr(self.source, error.field), rule, error.remedy)
