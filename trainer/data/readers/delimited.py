"""CSV and TSV: a header, then a row a document, quoted as RFC 4180 has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from trainer.data.readers.found import (
    BROKEN_QUOTES,
    CELLS,
    LIMIT,
    MISSING,
    NUL,
    TOO_LONG,
    Aside,
    Bad,
    Found,
    Place,
    Reason,
    Unreadable,
    checked,
)
from trainer.data.readers.rows import Field, refuse_columns, taken
from trainer.data.readers.streams import blocks, pieces

NO_ROWS = "files without rows"


def read_delimited(file: Path, compression: str, field: Field, delimiter: str) -> Iterator[Found]:
    """The documents of rows; cells are text. Raises NoColumn, Unreadable for a header that cannot be read."""
    csv.field_size_limit(LIMIT + 1)  # of the process, 128 KiB at first; records are bounded by _Records
    records = _Records(file, compression, delimiter)
    _, header = next(records, (0, []))
    if isinstance(header, Reason):
        raise Unreadable(f"its header can be read: {header.words}", header.remedy)
    if header:
        refuse_columns(field, header)
    rows = 0
    for line, cells in records:
        rows += 1
        place = Place(str(file), "line", line)
        if isinstance(cells, Reason):
            yield Bad(cells, place)
        elif len(cells) > len(header):
            yield Bad(CELLS, place)
        elif isinstance(field, str):
            column = header.index(field)
            yield checked(cells[column], place) if column < len(cells) else Bad(MISSING, place)
        else:
            yield taken(field, dict(zip(header, cells, strict=False)), place)
    if not rows:
        yield Aside(NO_ROWS, Place(str(file)))


class _TooLong(Exception):
    """The record goes on beyond LIMIT."""


class _Records:
    """Records with the line where each begins; a Reason in place of one that cannot be used."""

    def __init__(self, file: Path, compression: str, delimiter: str) -> None:
        self.pieces = pieces(blocks(file, compression), dropped=self._count)
        self.reader = csv.reader(iter(self._line, None), delimiter=delimiter, strict=True)
        self.begin = self.size = self.quotes = 0
        self.nul = False

    def __iter__(self) -> Iterator[tuple[int, list[str] | Reason]]:
        return self

    def __next__(self) -> tuple[int, list[str] | Reason]:
        while True:
            self.begin = self.size = self.quotes = 0
            self.nul = False
            try:
                cells: list[str] | Reason = next(self.reader)
            except _TooLong:
                self._pass_over()
                cells = TOO_LONG
            except csv.Error:
                cells = BROKEN_QUOTES
            if cells:
                return self.begin, NUL if self.nul else cells

    def _line(self) -> str | None:
        """The next line, for the parser. Raises _TooLong: an iterator made of a function survives that."""
        if (piece := next(self.pieces, None)) is None:
            return None
        line, content = piece
        self.begin = self.begin or line
        if content is None:
            raise _TooLong
        self._count(content)
        self.size += len(content) + 1
        if self.size > LIMIT:
            raise _TooLong
        if b"\0" in content:
            self.nul, content = True, content.replace(b"\0", b"")
        return content.decode(errors="surrogateescape") + "\n"

    def _count(self, content: bytes) -> None:
        self.quotes += content.count(b'"')

    def _pass_over(self) -> None:
        """To the end of a record: an even number of quotes, since a quote inside a quoted cell is doubled."""
        while self.quotes % 2 and (piece := next(self.pieces, None)) is not None:
            self._count(piece[1] or b"")
