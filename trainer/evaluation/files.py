"""Files that a model is scored on: texts, and objects a line. No torch: a mistake is answered in a second."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.paths import source_error
from trainer.data.readers.files import files_of, found_in_files
from trainer.data.readers.formats import Format
from trainer.data.readers.found import EMPTY, Bad, Document
from trainer.errors import DataError, Problem
from trainer.evaluation.options import in_options
from trainer.storage.base import is_remote

DATA = "--data"
PLAIN = Format("text", "")
LARGEST = 1 << 30
"""Bytes of a file: it is held in memory as a whole, and a score needs no more."""


@dataclass(frozen=True)
class Texts:
    """What one --data names. files: how many. documents: those of all files, none of them empty."""

    name: str
    files: int
    documents: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Line:
    """An object of a JSONL file, and where it stands."""

    place: str
    value: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How --data is read, as the keys of data.sources say it."""

    format: str | None = None
    text_field: str = "text"
    document_unit: str = "file"


def read_texts(given: Sequence[str], how: Reading = Reading()) -> list[Texts]:
    """Raises DataError with the problems of all: what is missing, no UTF-8, of no known format, or holds no text."""
    found: list[Texts] = []
    problems: list[Problem] = []
    for name in given:
        try:
            with in_options(DATA, name):
                found.append(_texts(name, how))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def _texts(name: str, how: Reading) -> Texts:
    refuse_remote(name, DATA)
    source = SourceConfig(name=DATA, paths=[name], **asdict(how))
    files = files_of(source)
    documents: list[str] = []
    for file in files:
        assert isinstance(file.path, Path), "none of them lies in S3"
        if file.format == PLAIN and how.document_unit == "file":  # a score has use for documents of any length
            documents.append(_decoded(read(file.path, DATA), str(file.path)))
            continue
        for found in found_in_files(source, [file]):
            if isinstance(found, Document):
                documents.append(found.text)
            elif isinstance(found, Bad) and found.reason != EMPTY:
                rule = f"is a document that can be scored; it is {found.reason.words}"
                raise source_error(source, found.reason.field, str(found.place), rule, found.reason.remedy)
    kept = tuple(text for text in documents if text)
    if not kept:
        raise DataError(Problem(DATA, name, "holds a text; it is empty", "name files that are not"))
    return Texts(name, len(files), kept, digest_of(kept))


def refuse_remote(name: str, key: str) -> None:
    """Raises DataError for a file in S3."""
    if is_remote(name):
        raise DataError(Problem(key, name, "is a file of this machine", f"copy it here: aws s3 cp {name} ."))


def digest_of(texts: Iterable[str]) -> str:
    """SHA-256 of the texts, in order, and where each of them ends."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def read(path: Path, key: str) -> bytes:
    """All bytes of a file. Raises DataError where it cannot be read or is larger than LARGEST."""
    try:
        if not path.is_file():
            raise DataError(Problem(key, str(path), "is a file that exists", "correct the path"))
        if (size := path.stat().st_size) > LARGEST:
            rule = f"has at most {LARGEST >> 30} GiB; it has {size:,} bytes"
            raise DataError(Problem(key, str(path), rule, "take a part of it: scores need no more"))
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(Problem(key, str(path), f"can be read ({why})", "restore access to it")) from None


def lines(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a JSONL file that are not blank, each with its place."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield f"{name}:{number}", line


def parsed(place: str, line: bytes) -> Line:
    """Raises DataError where it is no object."""
    text = _decoded(line, place).strip()
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        rule = f"is a line of JSON ({' '.join(str(error).split())[:120]})"
        raise DataError(Problem(place, text[:60], rule, "mend the line; one object stands on one line")) from None
    if not isinstance(value, dict):
        raise DataError(Problem(place, text[:60], "is an object: {...}", "give its fields names"))
    return Line(place, value)


def refuse_surrogates(place: str, text: str) -> str:
    """The text, unless it has half of a character, which JSON can spell and no tokenizer takes. Raises DataError."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        rule = "is text: it has half of a surrogate pair"
        raise DataError(Problem(place, ascii(text)[:60], rule, "write the character, or both halves")) from None
    return text


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown, rule = data[max(0, error.start - 10) : error.start + 1], f"is text in UTF-8; byte {error.start:,} is not"
        raise DataError(Problem(place, shown, rule, "convert it to UTF-8")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python takes the last of two fields of one name, in silence."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the field {twice!r} stands there twice")
    return value
