"""Plain text: a document is a file, a paragraph or a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from trainer.data.readers.found import EMPTY, LIMIT, NOT_UTF8, NUL, TOO_LONG, Aside, Bad, Document, Found, Place
from trainer.data.readers.streams import blocks, pieces, unix_newlines

SEPARATORS = {"paragraph": b"\n\n", "line": b"\n"}
JSON_AS_TEXT = "text files begin with a JSON object that has the text field: for its texts alone set format: jsonl"


def read_text(file: Path, compression: str, unit: str, field: str | None) -> Iterator[Found]:
    """Documents of a text file. field: the text field, for a word about what seems to be JSON lines; None for none.

    Blank lines and paragraphs stand between documents and are none.
    """
    source = unix_newlines(blocks(file, compression))
    first = next(source, b"")
    if field is not None:
        yield from word_about_json(first, str(file), field)
    source = chain([first], source)
    if unit == "file":
        yield _whole(source, str(file))
    else:
        yield from read_text_lines(source, str(file), unit)


def read_text_lines(source: Iterable[bytes], file: str, unit: str) -> Iterator[Found]:
    """Lines or paragraphs, of blocks in which every end of line is one byte."""
    for line, content in pieces(source, SEPARATORS[unit]):
        if content is None:
            yield Bad(TOO_LONG, Place(file, "line", line))
        elif content:
            yield _document(content, file, line)


def word_about_json(block: bytes, file: str, field: str) -> Iterator[Aside]:
    """A word, where a file's first block seems to be JSON with the text field."""
    if _is_json(block, field):
        yield Aside(JSON_AS_TEXT, Place(file))


def _whole(source: Iterator[bytes], file: str) -> Document | Bad:
    held: list[bytes] = []
    size = 0
    for block in source:
        size += len(block)
        if size > LIMIT:
            return Bad(TOO_LONG, Place(file))
        held.append(block)
    return _document(b"".join(held), file, None) if size else Bad(EMPTY, Place(file))


def _document(content: bytes, file: str, line: int | None) -> Document | Bad:
    """line: where it begins; None for all of a file."""
    start, place = line or 1, Place(file) if line is None else Place(file, "line", line)
    if b"\0" in content:
        return Bad(NUL, Place(file, "line", start + content.count(b"\n", 0, content.index(b"\0"))))
    try:
        return Document(content.decode(), place)
    except UnicodeDecodeError as error:
        return Bad(NOT_UTF8, Place(file, "line", start + content.count(b"\n", 0, error.start)))


def _is_json(block: bytes, field: str) -> bool:
    if not block.startswith(b"{"):
        return False
    try:
        value = json.loads(block.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get(field), str)
