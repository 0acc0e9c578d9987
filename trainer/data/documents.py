"""The texts of a source, in a fixed order, and the digest of its content."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from trainer.config.groups.data import SourceConfig
from trainer.config.plugins import call
from trainer.data.paths import in_s3, root_of, source_error, source_files
from trainer.data.readers.files import FileOf, files_of, found_in_files
from trainer.data.readers.formats import ORDER, Format, read_otherwise
from trainer.data.readers.found import Document, Found, Place, checked
from trainer.data.readers.hub import found_in_data_sets, revision
from trainer.data.readers.rows import field_of, taken
from trainer.data.skipped import Policy
from trainer.errors import DataError, RunError
from trainer.storage.base import S3, Stored

CHUNK = 1 << 20
PLAIN = Format("text", "")


def documents(source: SourceConfig, policy: Policy | None = None) -> Iterator[str]:
    """The non-empty texts of a source, always in the same order. policy: takes what cannot be used.

    Raises DataError, naming the key, when files, columns or data sets are missing or unreadable, or hold no text.
    """
    return (one.text for one in found_documents(source, policy)[0])


def found_documents(source: SourceConfig, policy: Policy | None = None) -> tuple[Iterator[Document], str]:
    """The same, with their places, and the directory that all files lie below."""
    every, root = found_in(source)
    return _documents(source, every, root, Policy() if policy is None else policy), root


def _documents(source: SourceConfig, every: Iterator[Found], root: str, policy: Policy) -> Iterator[Document]:
    found = False
    for one in every:
        if isinstance(one, Document):
            found = True
            yield one
        else:
            policy.take(source, one, root)
    if not found:
        raise policy.nothing(source)


def fingerprint(source: SourceConfig) -> str:
    """Digest of what `documents` would yield: names, sizes and contents of the files, and how they are cut.

    Neither the source's name, its weight nor where the files lie is part of it. Reads every byte (about 1 GB/s), but of
    a source in S3: its ETags stand for the contents.
    """
    digest = hashlib.blake2b(digest_size=16)
    fields = [source.kind, source.text_field, source.document_unit, source.subset, source.split]
    fields += [] if source.chat is None else [source.chat]
    digest.update(json.dumps(fields).encode())
    if source.kind == "plugin":  # only its documents tell whether it is what it was
        for text in documents(source):
            digest.update(f"{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
    if in_s3(source):
        digest.update(json.dumps(_marks_in_s3(source)).encode())
        return digest.hexdigest()
    marks = []
    try:
        files = source_files(source)
        otherwise = _read_otherwise(source)
        root = root_of(files) if files else Path()
        for file in files:
            name = file.relative_to(root).as_posix()
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                first = stream.read(CHUNK)
                digest.update(first)
                while block := stream.read(CHUNK):
                    digest.update(block)
            if file in otherwise:
                marks.append(f"\0{name} as {otherwise[file]}")
            elif source.kind == "files" and first.startswith(codecs.BOM_UTF8):
                marks.append(f"\0{name} without its mark")
    except OSError as error:
        raise _unreadable(source, error) from error
    digest.update("".join(marks).encode())
    if source.kind == "huggingface":
        for path in source.paths:
            if not Path(path).expanduser().is_dir():
                digest.update(revision(source, path).encode())
    return digest.hexdigest()


def size_in_bytes(source: SourceConfig) -> int | None:
    """Bytes that reading the source will go through, for a progress bar; None where text is only a part of them."""
    if source.kind == "python_stdlib":
        return sum(file.stat().st_size for file in source_files(source))
    files = files_of(source) if source.kind == "files" else []
    return sum(file.size for file in files) if {file.format for file in files} == {PLAIN} else None


def inputs_of(source: SourceConfig) -> list[FileOf]:
    """The local files that a source reads, in the order in which they are read. Raises DataError."""
    if source.kind == "files":
        return sorted(files_of(source), key=lambda one: ORDER.index(one.format.name))
    return [FileOf(path, PLAIN) for path in source_files(source)]


def found_in_inputs(source: SourceConfig, inputs: list[FileOf]) -> Iterator[Found]:
    """What readers find in some of them."""
    return _standard_library(source, inputs) if source.kind == "python_stdlib" else found_in_files(source, inputs)


def found_in(source: SourceConfig) -> tuple[Iterator[Found], str]:
    """What readers find, and the directory that all files lie below."""
    if source.kind == "indexed":
        raise source_error(source, "kind", source.kind, "holds tokens, not text", "use data.tokenizer.kind=file")
    if source.kind == "plugin":
        return _plugin(source), ""
    if source.kind == "huggingface":
        return found_in_data_sets(source), ""
    inputs = inputs_of(source)
    root = str(root_of([file.path for file in inputs])) if source.kind == "files" else ""
    return found_in_inputs(source, inputs), f"{S3}{root}" if in_s3(source) else root


def _standard_library(source: SourceConfig, inputs: list[FileOf]) -> Iterator[Found]:
    """Some of its files are tests of other encodings, and some are empty: none of its readers' doing."""
    for file, *_ in inputs:
        assert isinstance(file, Path), "it lies on this machine"
        try:
            if text := file.read_text(encoding="utf-8", errors="replace"):
                yield Document(text, Place(str(file)))
        except OSError as error:
            raise _unreadable(source, error) from error


def _plugin(source: SourceConfig) -> Iterator[Found]:
    """Documents of the user's own callable."""
    target = source._target_ or ""
    try:
        for index, text in enumerate(call(f"data.sources[{source.name}]._target_", target, options=source.options)):
            place = Place(target, "document", index)
            if source.chat is not None and isinstance(text, dict):
                yield taken(field_of(source), text, place)
                continue
            if not isinstance(text, str) or source.chat is not None:
                wanted = "str" if source.chat is None else "dict: rows of conversations"
                rule = f"yields documents ({wanted}), not {type(text).__name__}"
                raise source_error(source, "_target_", target, rule, "yield one document at a time")
            yield checked(text, place)
    except RunError:
        raise
    except Exception as error:  # whatever the user's code does
        raise _unreadable(source, error) from error


def _read_otherwise(source: SourceConfig) -> dict[Path, str]:
    """Files whose format is another one than when every unknown suffix was text: what is cached of them is too."""
    if source.kind != "files":
        return {}
    files = [(file.path, file.format) for file in files_of(source)]
    return {path: form.name for path, form in files if isinstance(path, Path) and read_otherwise(path, form)}


def _marks_in_s3(source: SourceConfig) -> list[object]:
    files = [(file.path, file.format) for file in files_of(source)]
    root = root_of([path for path, _ in files])
    return [
        [str(path.name.relative_to(root)), path.size, path.etag, *form]
        for path, form in files
        if isinstance(path, Stored)
    ]


def _unreadable(source: SourceConfig, error: Exception) -> DataError:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    remedy = f"mend {source._target_}" if source.kind == "plugin" else "repair or leave out the file"
    return source_error(source, "paths", source.paths, f"cannot be read: {cause}", remedy)
