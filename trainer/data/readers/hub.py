"""Data sets through the ``datasets`` library: directories made by save_to_disk, directories of files, and names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.paths import source_error, source_files
from trainer.data.readers.datasetdirs import refuse_mixture
from trainer.data.readers.found import Found, NoColumn, Place, Unreadable
from trainer.data.readers.rows import field_of, refuse_columns, taken
from trainer.errors import DataError, RunError

REMEDY = "give a directory made by save_to_disk, or check the name, subset, split and the network"


def found_in_data_sets(source: SourceConfig) -> Iterator[Found]:
    """What is in a source of kind huggingface. Raises DataError for what is missing or unreadable."""
    source_files(source)  # complains about paths
    for path in source.paths:
        try:
            yield from _rows(source, path)
        except RunError:
            raise
        except Exception as error:  # the library lets parsers, codecs and HTTP clients raise what they like
            raise _unreadable(source, error) from error


def revision(source: SourceConfig, path: str) -> str:
    """What the data set's builder calls its version: for a data set on the hub, the commit. Raises DataError."""
    import datasets

    try:
        with tempfile.TemporaryDirectory(prefix="trainer-datasets-") as scratch:
            return f"{path}\0{datasets.load_dataset_builder(path, source.subset, cache_dir=scratch).hash}"
    except Exception as error:  # whatever the hub, its client or the parser raises
        raise _unreadable(source, error) from error


def _rows(source: SourceConfig, path: str) -> Iterator[Found]:
    import datasets

    local = Path(path).expanduser()
    with tempfile.TemporaryDirectory(prefix="trainer-datasets-") as scratch:  # its lock files, kept out of the home
        rows: Any
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(local))
            if isinstance(rows, datasets.DatasetDict):
                if source.split not in rows:
                    remedy = f"use one of {', '.join(map(str, rows))}"
                    raise source_error(source, "split", source.split, f"{path} has no such split", remedy)
                rows = rows[source.split]
        else:
            if local.is_dir():
                _refuse_mixture(source, local)
            name = str(local) if local.is_dir() else path
            rows = datasets.load_dataset(name, source.subset, split=source.split, streaming=True, cache_dir=scratch)
        if rows.column_names:
            rows = rows.select_columns(_columns(source, rows.column_names))
        field = field_of(source)
        for index, row in enumerate(rows):
            if isinstance(field, str):
                _refuse_other_type(source, row)
            yield taken(field, row, Place(path, "row", index))


def _refuse_other_type(source: SourceConfig, row: dict[str, Any]) -> None:
    if source.text_field not in row:
        _columns(source, list(row))
    if (value := row[source.text_field]) is not None and not isinstance(value, str):
        rule = f"the column holds {type(value).__name__}, not text"
        raise source_error(source, "text_field", source.text_field, rule, "name a column of strings")


def _refuse_mixture(source: SourceConfig, directory: Path) -> None:
    try:
        refuse_mixture(directory)
    except Unreadable as error:
        raise source_error(source, error.field, str(directory), error.rule, error.remedy) from None


def _columns(source: SourceConfig, columns: list[str]) -> list[str]:
    """Those that are read."""
    try:
        return refuse_columns(field_of(source), columns)
    except NoColumn as error:
        value = getattr(source, error.field)
        raise source_error(source, error.field, value, error.rule, error.remedy) from None


def _unreadable(source: SourceConfig, error: Exception) -> DataError:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return source_error(source, "paths", source.paths, f"cannot be read: {cause}", REMEDY)
