"""JSON: an object a line, one array, or objects that go over several lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from trainer.data.readers.found import BROKEN_JSON, NO_OBJECT, TOO_LONG, Bad, Found, Place
from trainer.data.readers.rows import Field, lacks_field, taken, without_field
from trainer.data.readers.streams import blocks, pieces
from trainer.data.readers.values import values

NAMED = 20
"""Fields that a message names at the most."""
Row = tuple[Place, object]


def read_json(file: Path, compression: str, field: Field) -> Iterator[Found]:
    """The documents of rows. What fields hold that are not read, and whether a row has them, does not matter.

    Raises NoColumn where no row has what is read, Unreadable for an array that is broken.
    """
    source = blocks(file, compression)
    first = next(source, b"").lstrip()
    source = chain([first], source)
    if _is_lines(first):
        yield from read_json_lines(source, str(file), field)
    else:
        yield from _texts(values(source, str(file)), field)


def read_json_lines(source: Iterable[bytes], file: str, field: Field) -> Iterator[Found]:
    """The same, of blocks of a file that are known to have an object on each line."""
    yield from _texts(_lines(source, file), field)


def is_json_lines(file: Path, compression: str) -> bool:
    """Whether a file has an object on each line, rather than an array or objects over several lines."""
    return _is_lines(next(blocks(file, compression), b"").lstrip())


def _is_lines(block: bytes) -> bool:
    return not block.startswith(b"[") and not _spans_lines(block)


def _spans_lines(block: bytes) -> bool:
    """Whether a value goes on behind the first line, or another one follows on it: no JSON lines, and yet JSON."""
    if loads(block.partition(b"\n")[0]) is not BROKEN_JSON:
        return False
    try:
        json.JSONDecoder().raw_decode(block.decode(errors="ignore"))
    except (ValueError, RecursionError):
        return False
    return True


def _lines(source: Iterable[bytes], file: str) -> Iterator[Row | Bad]:
    for line, content in pieces(source):
        place = Place(file, "line", line)
        if content is None:
            yield Bad(TOO_LONG, place)
        elif content and not content.isspace():
            value = loads(content)
            yield Bad(BROKEN_JSON, place) if value is BROKEN_JSON else (place, value)


def loads(content: bytes) -> object:
    """The value, or BROKEN_JSON. Bytes that are not UTF-8 are kept as surrogates: they may be another field's."""
    try:
        return json.loads(content.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return BROKEN_JSON


def _texts(rows: Iterable[Row | Bad], field: Field) -> Iterator[Found]:
    seen = False
    columns: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Bad):
            yield row
            continue
        place, value = row
        if not isinstance(value, dict):
            yield Bad(NO_OBJECT, place)
            continue
        if not lacks_field(found := taken(field, value, place)):
            seen = True
        elif not seen and len(columns) < NAMED:
            columns.update(dict.fromkeys(map(str, value)))
        yield found
    if columns and not seen:
        raise without_field(field, list(columns)[:NAMED])
