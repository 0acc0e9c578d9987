"""What a source is cut into for its preparation: units that follow from the names and sizes of its files alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import inputs_of
from trainer.data.paths import in_s3, root_of, source_error
from trainer.data.readers.files import FileOf
from trainer.data.readers.parts import is_cut
from trainer.storage.base import S3, Stored

SMALLEST, LARGEST = 1 << 20, 256 << 20
UNITS = 64
"""Bytes of a unit: the source's divided by UNITS, between SMALLEST and LARGEST."""
APART = ("files", "python_stdlib")
"""Kinds of sources whose files are read one by one; those of a data set are its library's matter."""
FILES = 10_000
"""Files of a unit, at the most."""
FORMAT = 1
"""Raise it when what a unit leaves changes meaning."""


class Input(NamedTuple):
    """A file that a source reads. path: below the root of the source's files. etag: of an object in S3."""

    path: str
    size: int
    mtime_ns: int
    cut: bool
    etag: str = ""


class Piece(NamedTuple):
    """What a unit reads of a file. begin, end: bytes of a part; begin = end = -1: all of it."""

    path: str
    size: int
    mtime_ns: int
    begin: int = -1
    end: int = -1
    etag: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is the file as it stands."""
        return self.begin < 0

    @property
    def first(self) -> bool:
        """Whether the file begins with it."""
        return self.begin <= 0

    @property
    def bytes(self) -> int:
        """What it has of the file."""
        return self.size if self.whole else min(self.end, self.size) - self.begin


@dataclass(frozen=True)
class Inputs:
    """The files of a source in the order in which they are read.

    root: what all lie below; empty without files. apart: whether each can be read by itself.
    """

    root: str
    files: list[Input]
    apart: bool

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def inputs(source: SourceConfig) -> Inputs:
    """Look at the files of a source. Raises DataError for paths that are missing or files that are gone."""
    files = inputs_of(source)
    if not files:
        return Inputs("", [], apart=False)
    root = f"{S3 if in_s3(source) else ''}{root_of([file.path for file in files])}"
    begin = len(root.rstrip("/")) + 1
    return Inputs(root, [_input(source, file, begin) for file in files], source.kind in APART)


def _input(source: SourceConfig, file: FileOf, begin: int) -> Input:
    """begin: of the name below the root. Strings, because there may be a million files."""
    cut = source.kind == "files" and is_cut(file.format.name, file.format.compression, source.document_unit)
    if isinstance(file.path, Stored):
        return Input(str(file.path)[begin:], file.path.size, int(file.path.mtime * 1e9), cut, file.path.etag)
    try:
        stat = os.stat(file.path)  # noqa: PTH116
    except OSError as error:
        rule = f"cannot be read: {error.strerror or error}"
        raise source_error(source, "paths", str(file.path), rule, "repair or leave out the file") from error
    return Input(str(file.path)[begin:], stat.st_size, stat.st_mtime_ns, cut)


def units(inputs: Inputs) -> list[list[Piece]]:
    """The pieces of each unit; one unit, maybe without pieces, where files cannot be read by themselves."""
    if not inputs.apart:
        return [[Piece(*file[:3]) for file in inputs.files]]
    step = min(max(inputs.bytes // UNITS, SMALLEST), LARGEST)
    found: list[list[Piece]] = [[]]
    size = 0
    for piece in _pieces(inputs.files, step):
        if found[-1] and (size + piece.bytes > step or len(found[-1]) == FILES):
            found.append([])
            size = 0
        found[-1].append(piece)
        size += piece.bytes
    return found


def _pieces(files: list[Input], step: int) -> Iterator[Piece]:
    for path, size, mtime_ns, cut, etag in files:
        count = round(size / step) if cut else 1
        if count <= 1:
            yield Piece(path, size, mtime_ns, etag=etag)
            continue
        for index in range(count):
            end = size * (index + 1) // count if index + 1 < count else size + 1
            yield Piece(path, size, mtime_ns, size * index // count, end, etag)


def key_of(pieces: list[Piece], settings: dict[str, Any]) -> str:
    """What a unit's tokens follow from: its pieces and what they are prepared with."""
    content = json.dumps([FORMAT, settings, pieces], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def deciding_fields(source: SourceConfig) -> dict[str, Any]:
    """The fields of a source that decide its text, beside the files."""
    fields = asdict(source)
    names = ["kind", "text_field", "format", "document_unit", "subset", "split"]
    return {name: fields[name] for name in [*names, *([] if source.chat is None else ["chat"])]}
