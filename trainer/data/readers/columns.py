"""Columns of a table as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.data.readers.found import LIMIT, NOT_UTF8, TOO_LONG, Found, Place, Unreadable, checked
from trainer.data.readers.rows import Field, refuse_columns, taken

STEP = 8 << 20
"""Bytes of a column that become Python's strings at once, about."""


def check_columns(schema: Any, field: Field) -> list[str]:
    """Those that are read. Raises NoColumn, or Unreadable for a text field that holds no text. schema: pyarrow's."""
    import pyarrow

    columns = refuse_columns(field, schema.names)
    if not isinstance(field, str):
        return columns
    types = pyarrow.types
    kind = schema.field(field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view, types.is_null)):
        raise Unreadable(f"the column holds {kind}, not text", "name a column of strings", "text_field")
    return columns


def batch_documents(batch: Any, field: Field, file: str, first: int) -> Iterator[Found]:
    """Documents of a record batch of the columns that are read. first: the row of its first one."""
    if isinstance(field, str):
        yield from column_texts(batch.column(field), file, first)
        return
    step = max(1, STEP * len(batch) // max(batch.nbytes, 1))
    for start in range(0, len(batch), step):
        for index, row in enumerate(batch.slice(start, step).to_pylist(), first + start):
            yield taken(field, row, Place(file, "row", index))


def column_texts(column: Any, file: str, first: int) -> Iterator[Found]:
    """Documents of an array of strings. first: the row of its first one."""
    step = max(1, STEP * len(column) // max(column.nbytes, 1))
    for start in range(0, len(column), step):
        for index, value in enumerate(_values(column.slice(start, step)), first + start):
            yield checked(value, Place(file, "row", index))


def _values(part: Any) -> list[Any]:
    """Strings, None, and a Reason for what cannot be one."""
    import pyarrow
    import pyarrow.compute as compute

    if pyarrow.types.is_null(part.type):
        return [None] * len(part)
    text = part.cast(pyarrow.large_string()) if not pyarrow.types.is_large_string(part.type) else part
    long = compute.greater(compute.binary_length(text), LIMIT)
    if compute.any(long).as_py():
        text = compute.if_else(long, pyarrow.scalar(None, text.type), text)
        return [TOO_LONG if over else value for over, value in zip(long.to_pylist(), _strings(text), strict=True)]
    return _strings(text)


def _strings(text: Any) -> list[Any]:
    try:
        return list(text.to_pylist())
    except UnicodeDecodeError:
        return [_string(value) for value in text]


def _string(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8
