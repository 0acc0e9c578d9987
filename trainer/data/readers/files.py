"""All files of a source, in order, each read as its format says; a file that cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from trainer.config.groups.data import SourceConfig
from trainer.data.paths import in_s3, source_error, source_files, source_objects
from trainer.data.readers.arrow import read_arrow
from trainer.data.readers.datasetdirs import refuse_data_set
from trainer.data.readers.delimited import read_delimited
from trainer.data.readers.formats import ORDER, Format, format_of
from trainer.data.readers.found import Found, Unreadable
from trainer.data.readers.jsonlines import read_json
from trainer.data.readers.parquet import read_parquet
from trainer.data.readers.parts import Part, read_part
from trainer.data.readers.rows import field_of
from trainer.data.readers.text import read_text
from trainer.data.readers.webdataset import read_tar
from trainer.data.remote import as_file
from trainer.errors import RunError
from trainer.rules.text import DOCUMENT_UNITS
from trainer.storage.base import S3, Stored

REPAIR = "repair or leave out the file"


class FileOf(NamedTuple):
    """A file of a source, here or in S3, or a part of one, and its format."""

    path: Path | Stored
    format: Format
    part: Part | None = None
    """None: all of it."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.size if isinstance(self.path, Stored) else self.path.stat().st_size


def files_of(source: SourceConfig) -> list[FileOf]:
    """The files of a source (kind files), in the order of their paths. Raises DataError for an unknown suffix."""
    found = []
    remote = in_s3(source)
    paths: Sequence[Path | Stored] = source_objects(source) if remote else source_files(source)
    names = [_name(path) for path in paths]
    for given in source.paths:
        directory = PurePath(given.removeprefix(S3)) if remote else Path(given).expanduser().absolute()
        if source.format is None and (inside := [name for name in names if directory in name.parents]):
            try:
                refuse_data_set(directory, inside)
            except Unreadable as error:
                raise source_error(source, error.field, given, error.rule, error.remedy) from None
    for path, name in zip(paths, names, strict=True):
        try:
            found.append(FileOf(path, format_of(name, source.format)))
        except Unreadable as error:
            raise source_error(source, error.field, str(path), error.rule, error.remedy) from None
    return found


def _name(path: Path | Stored) -> PurePath:
    return path.name if isinstance(path, Stored) else path


def found_in_files(source: SourceConfig, files: list[FileOf]) -> Iterator[Found]:
    """What is in the files: text first, then JSON lines, Parquet and the rest. Raises DataError that names the file."""
    if source.document_unit not in DOCUMENT_UNITS:
        remedy = f"use one of {', '.join(DOCUMENT_UNITS)}"
        raise source_error(source, "document_unit", source.document_unit, "unknown unit of text", remedy)
    for file in sorted(files, key=lambda one: ORDER.index(one.format.name)):
        try:
            yield from _read(file, source)
        except RunError:
            raise
        except Unreadable as error:
            value = str(file.path) if error.field == "paths" else getattr(source, error.field)
            where = "" if error.field == "paths" else f" ({file.path})"
            raise source_error(source, error.field, value, error.rule + where, error.remedy) from None
        except Exception as error:  # codecs and parsers raise what they like
            cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise source_error(source, "paths", str(file.path), f"cannot be read: {cause}", REPAIR) from error


def _read(file: FileOf, source: SourceConfig) -> Iterator[Found]:
    if isinstance(file.path, Path):
        yield from _read_local(file.path, file, source)
        return
    with as_file(file.path, f"data.sources[{source.name}].paths") as copy:
        for found in _read_local(copy, file, source):
            yield found._replace(place=found.place._replace(file=str(file.path)))


def _read_local(path: Path, file: FileOf, source: SourceConfig) -> Iterator[Found]:
    """path: of the file, or of a copy of it."""
    (name, compression), part = file.format, file.part
    field = field_of(source)
    if name == "text" and source.chat is not None:
        rule, remedy = "is text, and conversations are rows: JSON, CSV, Parquet, Arrow", "leave it out, or set format"
        raise Unreadable(rule, remedy)
    if part is not None:
        hint = source.format is None
        return read_part(path, name, field, source.document_unit, hint, part)
    if name == "text":
        return read_text(path, compression, source.document_unit, source.text_field if source.format is None else None)
    if name == "jsonl":
        return read_json(path, compression, field)
    if name in ("csv", "tsv"):
        return read_delimited(path, compression, field, "," if name == "csv" else "\t")
    if name == "tar":
        return read_tar(path, compression, field)
    return (read_parquet if name == "parquet" else read_arrow)(path, field)
