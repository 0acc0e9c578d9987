"""Arrow IPC, as a file or as a stream, which is what save_to_disk writes: a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.data.readers.columns import check_column, column_texts
from trainer.data.readers.found import Aside, Found, Place
from trainer.data.readers.parquet import NO_ROWS

MAGIC = b"ARROW1"
"""What the file format begins with; a stream does not."""


def read_arrow(file: Path, field: str) -> Iterator[Found]:
    """The texts of one column. Raises NoColumn, or Unreadable for another type."""
    import pyarrow

    row = 0
    with pyarrow.OSFile(str(file)) as source:
        for column in _columns(source, field):
            yield from column_texts(column, str(file), row)
            row += len(column)
    if not row:
        yield Aside(NO_ROWS, Place(str(file)))


def _columns(source: Any, field: str) -> Iterator[Any]:
    """The column of each record batch; of a file the others are not read."""
    import pyarrow.ipc

    if source.read(len(MAGIC)) == MAGIC:
        schema = pyarrow.ipc.open_file(source).schema
        check_column(schema, field)
        options = pyarrow.ipc.IpcReadOptions(included_fields=[schema.get_field_index(field)])
        opened = pyarrow.ipc.open_file(source, options=options)
        for index in range(opened.num_record_batches):
            yield opened.get_batch(index).column(field)
        return
    source.seek(0)
    stream = pyarrow.ipc.open_stream(source)
    check_column(stream.schema, field)
    for batch in stream:
        yield batch.column(field)
