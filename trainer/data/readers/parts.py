"""Parts of a large file, read on their own: together they give what the whole file gives, in the same order.

A part is named by two places in bytes. Where it begins and ends within the file is found out by whoever reads it: at
the first border between documents at or behind each place. So parts follow from a file's size alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.data.readers.found import (
    BROKEN_JSON,
    NO_OBJECT,
    TOO_LONG,
    Bad,
    Document,
    Found,
    NoColumn,
)
from trainer.data.readers.jsonlines import is_json_lines, read_json, read_json_lines
from trainer.data.readers.parquet import read_parquet
from trainer.data.readers.rows import Field, lacks_field
from trainer.data.readers.streams import BLOCK, blocks, unix_newlines
from trainer.data.readers.text import read_text_lines, word_about_json

LINE = re.compile(rb"\n")
PARAGRAPH = re.compile(rb"[^\r\n](?:\n\n|\r\n\r\n)")
"""The first blank line of several: where a whole file would be cut whatever the number of them."""
OVERLAP = 4
"""Bytes of a block that a border may need of the one before."""
WITHOUT_FIELD = (NO_OBJECT, BROKEN_JSON, TOO_LONG)


@dataclass
class Part:
    """A part of a file, and what reading it has found out.

    begin, end: bytes. lines: newlines in it, where its places count from its own first line. columns: those of a JSON
    file's part in which no row has the text field, else None. seen: whether a row has it.
    """

    begin: int
    end: int
    lines: int = 0
    columns: list[str] | None = None
    seen: bool = False


def is_cut(name: str, compression: str, unit: str) -> bool:
    """Whether a file of this format can be read in parts. unit: of documents, for text."""
    return not compression and (name in ("jsonl", "parquet") or (name == "text" and unit != "file"))


def read_part(file: Path, name: str, field: Field, unit: str, hint: bool, part: Part) -> Iterator[Found]:
    """What is in a part. hint: whether text is looked at for JSON. Places count lines from the part's first."""
    if name == "parquet":
        yield from read_parquet(file, field, (part.begin, part.end))
    elif name == "text":
        if hint and not part.begin and isinstance(field, str):
            yield from word_about_json(next(blocks(file, ""), b""), str(file), field)
        border = LINE if unit == "line" else PARAGRAPH
        source = _counted(unix_newlines(_blocks(file, part, border)), part)
        yield from read_text_lines(source, str(file), unit)
    elif is_json_lines(file, ""):
        yield from _noted(read_json_lines(_counted(_blocks(file, part, LINE), part), str(file), field), part)
    elif not part.begin:
        yield from _noted(read_json(file, "", field), part)


def lines_before(file: Path, name: str, unit: str, part: Part) -> int:
    """Ends of lines in the file before a part."""
    border = PARAGRAPH if (name, unit) == ("text", "paragraph") else LINE
    source: Iterable[bytes] = _blocks(file, Part(0, part.begin), border) if part.begin else []
    return sum(block.count(b"\n") for block in (unix_newlines(source) if name == "text" else source))


def _noted(source: Iterator[Found], part: Part) -> Iterator[Found]:
    """Only all parts together know whether a field is nowhere."""
    try:
        for found in source:
            part.seen = part.seen or isinstance(found, Document) or _has_field(found)
            yield found
    except NoColumn as error:
        part.columns = error.columns


def _has_field(found: Found) -> bool:
    return isinstance(found, Bad) and found.reason not in WITHOUT_FIELD and not lacks_field(found)


def _counted(source: Iterable[bytes], part: Part) -> Iterator[bytes]:
    for block in source:
        part.lines += block.count(b"\n")
        yield block


def _blocks(file: Path, part: Part, border: re.Pattern[bytes]) -> Iterator[bytes]:
    begin = _border(file, part.begin, border, part.end) if part.begin else 0
    if begin is None:
        return
    end = _border(file, part.end, border)
    source, at = _from(file, begin), begin
    for block, size in source:
        if end is not None and at + size > end:
            yield block[: end - at - size]
            return
        yield block
        at += size


def _from(file: Path, begin: int) -> Iterator[tuple[bytes, int]]:
    """Blocks, and the bytes that each takes in the file: the first one may lack its byte-order mark."""
    if not begin:
        size = file.stat().st_size
        for index, block in enumerate(blocks(file, "")):
            yield block, min(BLOCK, size - index * BLOCK)
        return
    with file.open("rb") as stream:
        stream.seek(begin)
        while block := stream.read(BLOCK):
            yield block, len(block)


def _border(file: Path, place: int, border: re.Pattern[bytes], limit: int | None = None) -> int | None:
    """Where the first border ends that begins at a place or behind it; None without one (before ``limit``)."""
    with file.open("rb") as stream:
        stream.seek(place)
        held, at = b"", place
        while block := stream.read(BLOCK):
            held += block
            if (match := border.search(held)) is not None:
                found = at + match.end()
                return found if limit is None or at + match.start() < limit else None
            if limit is not None and at + len(held) - OVERLAP >= limit:
                return None
            at += max(0, len(held) - OVERLAP)
            held = held[-OVERLAP:]
    return None
