"""Parquet: the columns that are read, a row group at a time, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainer.data.readers.columns import STEP, batch_documents, check_columns
from trainer.data.readers.found import Aside, Found, Place
from trainer.data.readers.rows import Field
from trainer.data.readers.streams import BLOCK

NO_ROWS = "files without rows"
EMPTY_GROUP = "row groups without rows"
ROWS = 1024


def read_parquet(file: Path, field: Field, part: tuple[int, int] | None = None) -> Iterator[Found]:
    """The documents of rows; other columns stay on the disk. Raises NoColumn, or Unreadable for another type.

    part: two places in bytes, for the row groups that lie between them where all are taken for equally large.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file, buffer_size=BLOCK, pre_buffer=False) as opened:
        columns = check_columns(opened.schema_arrow, field)
        meta, row = opened.metadata, 0
        size = file.stat().st_size
        begin, end = part or (0, size)
        if not meta.num_rows:
            if not begin:
                yield Aside(NO_ROWS, Place(str(file)))
            return
        for index in range(meta.num_row_groups):
            group = meta.row_group(index)
            if not begin <= size * index // meta.num_row_groups < end:
                row += group.num_rows
                continue
            if not group.num_rows:
                yield Aside(EMPTY_GROUP, Place(str(file), "row group", index))
                continue
            rows = max(1, min(ROWS, STEP * group.num_rows // max(group.total_byte_size, 1)))
            for batch in opened.iter_batches(rows, row_groups=[index], columns=columns, use_threads=False):
                yield from batch_documents(batch, field, str(file), row)
                row += batch.num_rows
