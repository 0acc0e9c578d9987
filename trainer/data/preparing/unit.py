"""One unit of a source: read, tokenised and left in a directory of its own, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import found_in, found_in_inputs
from trainer.data.paths import source_error
from trainer.data.preparing.passed_over import PassedOver
from trainer.data.preparing.units import Piece
from trainer.data.progress import Advance
from trainer.data.readers.files import FileOf
from trainer.data.readers.formats import format_of
from trainer.data.readers.found import Aside, Bad, Document, Found
from trainer.data.readers.parts import Part, lines_before
from trainer.data.skipped import STOP, Policy
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizing import Part as Amount
from trainer.data.tokenizing import Tokenized, tokenize
from trainer.files import sync

RESULT = "unit.json"
BLOCK = 1 << 20


@dataclass
class Task:
    """All that a worker needs to know. compress: whether reference documents are wanted of it."""

    source: SourceConfig
    root: str
    pieces: list[Piece]
    fraction: float
    bad_documents: str
    directory: Path
    key: str
    compress: bool

    def to_json(self) -> dict[str, Any]:
        """For a pipe."""
        return asdict(self) | {"directory": str(self.directory)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Task:
        """What ``to_json`` made."""
        source = SourceConfig(**value.pop("source"))
        pieces = [Piece(*piece) for piece in value.pop("pieces")]
        return Task(source=source, pieces=pieces, directory=Path(value.pop("directory")), **value)


@dataclass
class Result:
    """What a unit has come to.

    digests: of the files that begin in it. parts: of those that are read in several. compressed: whether reference
    documents were wanted.
    """

    key: str
    tokenized: Tokenized
    digests: dict[str, str]
    parts: list[tuple[str, Part]]
    passed_over: PassedOver
    compressed: bool

    @staticmethod
    def read(directory: Path, key: str) -> Result | None:
        """The result in a directory; None where there is none, or one of another key."""
        try:
            value = json.loads((directory / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if value["key"] != key:
            return None
        train, heldout, reference, unknown = value["tokenized"].values()
        tokenized = Tokenized(Amount(**train), Amount(**heldout), [tuple(row) for row in reference], unknown)
        parts = [(path, Part(**part)) for path, part in value["parts"]]
        passed_over = PassedOver.of(value["passed_over"])
        return Result(key, tokenized, value["digests"], parts, passed_over, value["compressed"])


def prepare_unit(task: Task, tokenizer: Tokenizer, advance: Advance) -> None:
    """Leave a unit's token files and its result in task.directory. Raises DataError; OSError where it cannot write."""
    work = task.directory.with_name(f".{task.directory.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    passed_over, parts = PassedOver(), list(_parts(task))
    digests = {piece.path: _checked_digest(task, piece) for piece in task.pieces if piece.first}
    texts = _texts(task, parts, passed_over)
    tokenized = tokenize(texts, tokenizer, task.fraction, work, advance, task.compress)
    for piece in task.pieces:
        _check_unchanged(task, piece)
    cut = [(piece.path, part) for piece, part in zip(task.pieces, parts, strict=True) if part is not None]
    result = Result(task.key, tokenized, digests, cut, passed_over, task.compress)
    (work / RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")
    sync(work / RESULT)
    sync(work)
    shutil.rmtree(task.directory, ignore_errors=True)
    os.rename(work, task.directory)
    sync(task.directory.parent)


def _parts(task: Task) -> Iterator[Part | None]:
    for piece in task.pieces:
        yield None if piece.whole else Part(piece.begin, piece.end)


def _texts(task: Task, parts: list[Part | None], passed_over: PassedOver) -> Iterator[str]:
    for number, found in _found(task, parts):
        if isinstance(found, Document):
            yield found.text
        else:
            if task.bad_documents == STOP:
                Policy(STOP).take(task.source, _placed(found, task, parts[number] if parts else None), task.root)
            passed_over.take(found, task.root, number)


def _found(task: Task, parts: list[Part | None]) -> Iterator[tuple[int, Found]]:
    """What is found, with the number of its piece."""
    if not task.pieces:
        yield from ((0, found) for found in found_in(task.source)[0])
    for number, (piece, part) in enumerate(zip(task.pieces, parts, strict=True)):
        path = Path(task.root, piece.path)
        file = FileOf(path, format_of(path, task.source.format or _format(task.source)), part)
        yield from ((number, found) for found in found_in_inputs(task.source, [file]))


def _placed(found: Bad | Aside, task: Task, part: Part | None) -> Bad | Aside:
    """With its line in the whole file."""
    place = found.place
    if part is None or place.unit != "line":
        return found
    path = Path(place.file)
    before = lines_before(path, format_of(path, task.source.format).name, task.source.document_unit, part)
    return found._replace(place=place._replace(number=place.number + before))


def _format(source: SourceConfig) -> str | None:
    return "text" if source.kind == "python_stdlib" else None


def _checked_digest(task: Task, piece: Piece) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(Path(task.root, piece.path), "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise _gone(task, piece, f"cannot be read: {error.strerror or error}") from error
    _check_unchanged(task, piece)
    return digest.hexdigest()


def _check_unchanged(task: Task, piece: Piece) -> None:
    try:
        stat = Path(task.root, piece.path).stat()
    except OSError as error:
        raise _gone(task, piece, f"cannot be read: {error.strerror or error}") from error
    if (stat.st_size, stat.st_mtime_ns) != (piece.size, piece.mtime_ns):
        raise _gone(task, piece, "has changed while it was prepared")


def _gone(task: Task, piece: Piece, rule: str) -> Exception:
    remedy = "let the files rest, and give the same command again"
    return source_error(task.source, "paths", str(Path(task.root, piece.path)), rule, remedy)
