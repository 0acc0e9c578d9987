"""Arrow IPC, as a file or as a stream, which is what save_to_disk writes: a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.data.readers.columns import batch_documents, check_columns
from trainer.data.readers.found import Aside, Found, Place
from trainer.data.readers.parquet import NO_ROWS
from trainer.data.readers.rows import Field

MAGIC = b"ARROW1"
"""What the file format begins with; a stream does not."""


def read_arrow(file: Path, field: Field) -> Iterator[Found]:
    """The documents of rows. Raises NoColumn, or Unreadable for another type."""
    import pyarrow

    row = 0
    with pyarrow.OSFile(str(file)) as source:
        for batch in _batches(source, field):
            yield from batch_documents(batch, field, str(file), row)
            row += len(batch)
    if not row:
        yield Aside(NO_ROWS, Place(str(file)))


def _batches(source: Any, field: Field) -> Iterator[Any]:
    """The record batches, of the columns that are read; of a file the others are not read."""
    import pyarrow.ipc

    if source.read(len(MAGIC)) == MAGIC:
        schema = pyarrow.ipc.open_file(source).schema
        indices = [schema.get_field_index(name) for name in check_columns(schema, field)]
        options = pyarrow.ipc.IpcReadOptions(included_fields=indices)
        opened = pyarrow.ipc.open_file(source, options=options)
        for index in range(opened.num_record_batches):
            yield opened.get_batch(index)
        return
    source.seek(0)
    stream = pyarrow.ipc.open_stream(source)
    columns = check_columns(stream.schema, field)
    for batch in stream:
        yield batch.select(columns)
