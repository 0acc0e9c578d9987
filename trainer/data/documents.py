"""The texts of a source, in a fixed order, and the digest of its content."""

from __future__ import annotations

import glob
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.config.plugins import call
from trainer.data.paths import root_of, source_error, source_files
from trainer.errors import DataError, RunError

SAMPLE_BY = {"file": "document", "paragraph": "paragraph", "line": "line"}
"""Our document_unit in the words of the datasets library."""
BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
CHUNK = 1 << 20


def documents(source: SourceConfig) -> Iterator[str]:
    """The non-empty texts of a source, always in the same order.

    Raises DataError, naming the key, when files, columns or data sets are missing or unreadable, or hold no text.
    """
    found = False
    try:
        for text in _texts(source):
            if text:
                found = True
                yield text
    except RunError:
        raise
    except Exception as error:  # the datasets library lets parsers, codecs and HTTP clients raise what they like
        raise _unreadable(source, error) from error
    if not found:
        raise source_error(source, "paths", source.paths, "holds no text", "point it at files that are not empty")


def fingerprint(source: SourceConfig) -> str:
    """Digest of what `documents` would yield: names, sizes and contents of the files, and how they are cut.

    Neither the source's name, its weight nor where the files lie is part of it. Reads every byte (about 1 GB/s).
    """
    digest = hashlib.blake2b(digest_size=16)
    fields = [source.kind, source.text_field, source.document_unit, source.subset, source.split]
    digest.update(json.dumps(fields).encode())
    if source.kind == "plugin":  # only its documents tell whether it is what it was
        for text in documents(source):
            digest.update(f"{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
    try:
        files = source_files(source)
        root = root_of(files) if files else Path()
        for file in files:
            digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(CHUNK):
                    digest.update(block)
    except OSError as error:
        raise _unreadable(source, error) from error
    if source.kind == "huggingface":
        for path in source.paths:
            if not Path(path).expanduser().is_dir():
                digest.update(_hub_revision(source, path).encode())
    return digest.hexdigest()


def size_in_bytes(source: SourceConfig) -> int | None:
    """Bytes that reading the source will go through, for a progress bar; None where text is only a part of them."""
    if source.kind not in ("files", "python_stdlib"):
        return None
    files = source_files(source)
    return sum(file.stat().st_size for file in files) if {_builder(file) for file in files} == {"text"} else None


def _texts(source: SourceConfig) -> Iterator[str]:
    if source.kind == "plugin":
        yield from _plugin(source)
        return
    if source.kind == "huggingface":
        source_files(source)  # complains about paths
        for path in source.paths:
            yield from _huggingface(source, path)
        return
    if source.kind == "indexed":
        raise source_error(source, "kind", source.kind, "holds tokens, not text", "use data.tokenizer.kind=file")
    if source.document_unit not in SAMPLE_BY:
        remedy = f"use one of {', '.join(SAMPLE_BY)}"
        raise source_error(source, "document_unit", source.document_unit, "unknown unit of text", remedy)
    files = source_files(source)
    for builder in ("text", "json", "parquet"):
        chosen = [file for file in files if _builder(file) == builder]
        if chosen:
            if builder == "text" and source.kind == "files":
                _check_encoding(source, chosen)
            yield from _files(source, builder, chosen)


def _plugin(source: SourceConfig) -> Iterator[str]:
    """Documents of the user's own callable."""
    target = source._target_ or ""
    for text in call(f"data.sources[{source.name}]._target_", target, options=source.options):
        if not isinstance(text, str):
            rule = f"yields documents (str), not {type(text).__name__}"
            raise source_error(source, "_target_", target, rule, "yield the text of one document at a time")
        yield text


def _check_encoding(source: SourceConfig, files: list[Path]) -> None:
    """Refuse what is not UTF-8 text: a picture or another encoding would be learnt as noise without a word."""
    remedy = "convert it to UTF-8, or leave it out of the paths"
    for file in files:
        if file.suffix.lower() in COMPRESSED:
            continue
        content = file.read_bytes()
        if b"\0" in content:
            raise source_error(source, "paths", str(file), "text has no NUL bytes: binary, or UTF-16", remedy)
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise source_error(
                source, "paths", str(file), f"text is UTF-8; byte {error.start} is not", remedy
            ) from None


def _builder(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:  # the datasets library unpacks these by itself
        suffixes.pop()
    return BUILDERS.get(suffixes[-1], "text") if suffixes else "text"


def _files(source: SourceConfig, builder: str, files: list[Path]) -> Iterator[str]:
    import datasets

    options: dict[str, Any] = {"text": {"sample_by": SAMPLE_BY.get(source.document_unit)}}.get(builder, {})
    if builder != "parquet":
        options["encoding_errors"] = "replace"
    names = [glob.escape(str(file)) for file in files]  # the library would take brackets for a pattern
    field = "text" if builder == "text" else source.text_field
    with tempfile.TemporaryDirectory(prefix="trainer-datasets-") as scratch:  # its lock files, kept out of the home

        def load(**more: object) -> Any:
            return datasets.load_dataset(
                builder, data_files=names, split="train", streaming=True, cache_dir=scratch, **options, **more
            )

        rows = load()
        if builder == "parquet":
            _check_columns(source, rows.column_names, field)
            rows = load(columns=[field])  # leaves the other columns on the disk
        yield from _column(source, rows, field)


def _huggingface(source: SourceConfig, path: str) -> Iterator[str]:
    import datasets

    local = Path(path).expanduser()
    with tempfile.TemporaryDirectory(prefix="trainer-datasets-") as scratch:
        rows: Any
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(local))
            if isinstance(rows, datasets.DatasetDict):
                if source.split not in rows:
                    remedy = f"use one of {', '.join(map(str, rows))}"
                    raise source_error(source, "split", source.split, f"{path} has no such split", remedy)
                rows = rows[source.split]
        else:
            name = str(local) if local.is_dir() else path
            rows = datasets.load_dataset(name, source.subset, split=source.split, streaming=True, cache_dir=scratch)
        if rows.column_names:
            _check_columns(source, rows.column_names, source.text_field)
            rows = rows.select_columns([source.text_field])
        yield from _column(source, rows, source.text_field)


def _column(source: SourceConfig, rows: Any, field: str) -> Iterator[str]:
    without = total = 0
    for row in rows:
        total += 1
        text = row.get(field, "")
        without += not text
        if not text and field not in row:
            _check_columns(source, list(row), field)
        if text is not None and not isinstance(text, str):
            rule = f"the column holds {type(text).__name__}, not text"
            raise source_error(source, "text_field", field, rule, "name a column of strings")
        yield text or ""
    if without and field == source.text_field and source.kind != "python_stdlib":
        print(f"{source.name}: {without:,} of {total:,} rows have no {field!r} and were skipped", file=sys.stderr)


def _check_columns(source: SourceConfig, columns: list[str], field: str) -> None:
    if field not in columns:
        rule = f"there is no such column; there are: {', '.join(columns)}"
        raise source_error(source, "text_field", field, rule, "set text_field to the column that holds the text")


def _hub_revision(source: SourceConfig, path: str) -> str:
    """What the data set's builder calls its version: for a data set on the hub, the commit."""
    import datasets

    try:
        with tempfile.TemporaryDirectory(prefix="trainer-datasets-") as scratch:
            return f"{path}\0{datasets.load_dataset_builder(path, source.subset, cache_dir=scratch).hash}"
    except Exception as error:  # whatever the hub, its client or the parser raises
        raise _unreadable(source, error) from error


def _unreadable(source: SourceConfig, error: Exception) -> DataError:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if source.kind == "huggingface":
        remedy = "give a directory made by save_to_disk, or check the name, subset, split and the network"
    elif source.kind == "plugin":
        remedy = f"mend {source._target_}"
    else:
        remedy = "repair or leave out the file; text must be UTF-8, JSONL one object per line"
    return source_error(source, "paths", source.paths, f"cannot be read: {cause}", remedy)
