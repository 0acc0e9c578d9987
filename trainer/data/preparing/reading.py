"""The documents of one unit, and the files they come from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import found_in, found_in_inputs
from trainer.data.paths import source_error
from trainer.data.preparing.passed_over import PassedOver
from trainer.data.preparing.units import APART, Piece
from trainer.data.readers.files import FileOf
from trainer.data.readers.formats import format_of
from trainer.data.readers.found import Aside, Bad, Document, Found
from trainer.data.readers.parts import Part, lines_before
from trainer.data.remote import as_file
from trainer.data.skipped import STOP, Policy
from trainer.errors import DataError
from trainer.storage.base import Stored, is_remote

BLOCK = 1 << 20


@dataclass
class UnitText:
    """What a unit reads: pieces of files below a root; of a source without files, all of it.

    parts: of each piece that is no whole file, with what reading has found out.
    """

    source: SourceConfig
    root: str
    pieces: list[Piece]
    bad_documents: str
    passed_over: PassedOver = field(default_factory=PassedOver)
    parts: list[Part | None] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a pipe, before it is read."""
        fields = [self.source.__dict__, self.root, self.pieces, self.bad_documents]
        return dict(zip(("source", "root", "pieces", "bad_documents"), fields, strict=True))

    @staticmethod
    def from_json(value: dict[str, Any]) -> UnitText:
        """What ``to_json`` made."""
        pieces = [Piece(*piece) for piece in value["pieces"]]
        return UnitText(SourceConfig(**value["source"]), value["root"], pieces, value["bad_documents"])

    def texts(self) -> Iterator[str]:
        """Its documents, in order. Raises DataError."""
        return (document.text for document, _ in self.documents())

    def documents(self) -> Iterator[tuple[Document, int]]:
        """The same with their places, and the numbers of their pieces."""
        self.parts = [None if piece.whole else Part(piece.begin, piece.end) for piece in self.pieces]
        for number, found in self._found():
            if isinstance(found, Document):
                yield found, number
            else:
                self.take(found, number)
        for piece in self.pieces:
            self._check_unchanged(piece)

    def take(self, found: Bad | Aside, number: int) -> None:
        """Count what was passed over in a piece. Raises DataError where the policy is to stop."""
        if self.bad_documents == STOP:
            Policy(STOP).take(self.source, self._placed(found, number), self.root)
        self.passed_over.take(found, self.root, number)

    def cut(self) -> list[tuple[str, Part]]:
        """The parts of files that are read in several."""
        return [(piece.path, part) for piece, part in zip(self.pieces, self.parts, strict=True) if part is not None]

    def digests(self) -> dict[str, str]:
        """Of the files that begin in it. Raises DataError for one that has changed."""
        return {piece.path: self._digest(piece) for piece in self.pieces if piece.first}

    def _found(self) -> Iterator[tuple[int, Found]]:
        """What is found, with the number of its piece."""
        if self.source.kind not in APART:
            yield from ((0, found) for found in found_in(self.source)[0])
            return
        for number, (piece, part) in enumerate(zip(self.pieces, self.parts, strict=True)):
            path = self._path(piece)
            given = "text" if self.source.kind == "python_stdlib" else self.source.format
            file = FileOf(path, format_of(PurePath(piece.path), given), part)
            yield from ((number, found) for found in found_in_inputs(self.source, [file]))

    def _placed(self, found: Bad | Aside, number: int) -> Bad | Aside:
        """With its line in the whole file."""
        place, part = found.place, self.parts[number] if self.source.kind in APART else None
        if part is None or place.unit != "line":
            return found
        name = format_of(PurePath(place.file), self.source.format).name
        with self._here(self.pieces[number]) as path:
            before = lines_before(path, name, self.source.document_unit, part)
        return found._replace(place=place._replace(number=place.number + before))

    def _digest(self, piece: Piece) -> str:
        digest = hashlib.blake2b(digest_size=16)
        try:
            with self._here(piece) as path, path.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise self._gone(piece, f"cannot be read: {error.strerror or error}") from error
        self._check_unchanged(piece)
        return digest.hexdigest()

    def _path(self, piece: Piece) -> Path | Stored:
        """Of its file; an object in S3 is the one that was looked at, or an error."""
        if not is_remote(self.root):
            return Path(self.root, piece.path)
        return Stored(f"{self.root}/{piece.path}", piece.size, piece.mtime_ns / 1e9, piece.etag)

    @contextmanager
    def _here(self, piece: Piece) -> Iterator[Path]:
        """The file, or a copy of the object."""
        if isinstance(path := self._path(piece), Path):
            yield path
            return
        with as_file(path, f"data.sources[{self.source.name}].paths") as copy:
            yield copy

    def _check_unchanged(self, piece: Piece) -> None:
        if is_remote(self.root):
            return  # each reading was of the object with that ETag
        try:
            stat = os.stat(f"{self.root}/{piece.path}")  # noqa: PTH116
        except OSError as error:
            raise self._gone(piece, f"cannot be read: {error.strerror or error}") from error
        if (stat.st_size, stat.st_mtime_ns) != (piece.size, piece.mtime_ns):
            raise self._gone(piece, "has changed while it was prepared")

    def _gone(self, piece: Piece, rule: str) -> DataError:
        remedy = "let the files rest, and give the same command again"
        return source_error(self.source, "paths", str(Path(self.root, piece.path)), rule, remedy)
