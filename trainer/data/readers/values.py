"""JSON values one after another, or as the elements of one array, without ever holding more than one of them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator

from trainer.data.readers.found import LIMIT, Place, Unreadable
from trainer.data.readers.streams import BLOCK

BLANK = " \t\n\r"
LIST_FIELD = "text"
"""What the strings of an array of strings are called."""
REMEDY = "mend the file, or leave it out: an array of objects, or an object on each line"


def values(source: Iterable[bytes], file: str) -> Iterator[tuple[Place, object]]:
    """The values, counted from 0; a string of an array as an object with the field ``text``.

    Raises Unreadable where the JSON breaks off: it cannot be told where the next value would begin.
    """
    text = _Text(source)
    array = text.next() == "["
    if array:
        text.at += 1
    row = 0
    decoder = json.JSONDecoder()
    while (character := text.next()) and not (array and character == "]"):
        if array and row:
            if character != ",":
                raise Unreadable(f"is JSON: a comma before element {row:,} of the array", REMEDY)
            text.at += 1
            text.next()
        value = _value(text, decoder, row)
        yield Place(file, "row", row), {LIST_FIELD: value} if array and isinstance(value, str) else value
        row += 1
    if array:
        if not character:
            raise Unreadable(f"is JSON: the array ends after element {row:,} without a ]", REMEDY)
        text.at += 1
        if text.next():
            raise Unreadable("is JSON: something follows the array", REMEDY)


def _value(text: _Text, decoder: json.JSONDecoder, row: int) -> object:
    while True:
        try:
            value, end = decoder.raw_decode(text.held, text.at)
        except (ValueError, RecursionError) as error:
            if text.left() <= LIMIT and text.more():
                continue
            long = f", or element {row:,} is longer than {LIMIT >> 20} MiB" if text.left() > LIMIT else ""
            raise Unreadable(f"is JSON ({error}){long}", REMEDY) from None
        if end < len(text.held) or isinstance(value, dict | list | str) or not text.more():
            text.at = end
            return value


class _Text:
    """Text of which the rest is still to be read. held: what is there; at: where in it."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self.source = iter(source)
        self.decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self.held, self.at = "", 0

    def left(self) -> int:
        return len(self.held) - self.at

    def more(self) -> bool:
        """Read as much again as is there, so that long values are not scanned too often; False at the end."""
        parts, wanted = [self.held[self.at :]], max(BLOCK, self.left())
        self.at = 0
        while wanted > 0 and (block := next(self.source, None)) is not None:
            parts.append(self.decode(block))
            wanted -= len(block)
        self.held = "".join(parts)
        return len(parts) > 1

    def next(self) -> str:
        """The next character that is not blank, without passing it; empty at the end."""
        while True:
            while self.at < len(self.held) and self.held[self.at] in BLANK:
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""
