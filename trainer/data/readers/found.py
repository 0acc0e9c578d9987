"""What readers find: documents with their place, and what is wrong with one that cannot be used."""

from __future__ import annotations

import os
from typing import NamedTuple

LIMIT = 32 << 20
"""Bytes of a document, and of the line or cell that holds one: more is a bad document, and is never held in memory."""


class Place(NamedTuple):
    """Where something stands. unit: line (from 1) or row (from 0, as tables count them); empty for all of the file."""

    file: str
    unit: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number:,}" if self.unit else self.file

    def below(self, root: str) -> str:
        """The same, with the file's name below a directory, if there is one: what survives a move of the corpus."""
        return str(self._replace(file=os.path.relpath(self.file, root))) if root else str(self)


class Reason(NamedTuple):
    """Why a document cannot be used, what to do about it, and the source's field that it is about."""

    words: str
    remedy: str
    field: str = "paths"


NOT_UTF8 = Reason("not UTF-8", "convert the file to UTF-8, or leave it out of the paths")
NUL = Reason("a NUL byte in text", "remove the NUL bytes, or leave the file out of the paths")
SURROGATE = Reason("half of a surrogate pair", "write the character, or both halves")
TOO_LONG = Reason(
    f"longer than {LIMIT >> 20} MiB",
    "cut it into shorter ones; of a text file of several lines document_unit=paragraph or line does",
)
EMPTY = Reason("empty", "point it at text that is not empty")
BROKEN_JSON = Reason("broken JSON", "mend the line: one object on each")
BROKEN_QUOTES = Reason("broken quotes", 'mend the row: a quote inside a quoted cell is written ""')
CELLS = Reason("more cells than columns", "mend the row: a cell that holds the delimiter stands in quotes")
NO_OBJECT = Reason("no object", 'write an object: {"text": "..."}')
MISSING = Reason("without the text field", "set text_field to the field that holds the text", "text_field")
NULL = Reason("null where text should be", "set text_field to the field that holds the text", "text_field")
NO_TEXT = Reason("no text but another type", "name a field of strings", "text_field")


class Document(NamedTuple):
    """A text that is not empty, and where it stands."""

    text: str
    place: Place


class Bad(NamedTuple):
    """A document that cannot be used."""

    reason: Reason
    place: Place


class Aside(NamedTuple):
    """What is worth a word and costs no document."""

    words: str
    place: Place


Found = Document | Bad | Aside
TURNS = ("messages", "conversations")
"""Columns that hold conversations, by their usual names."""


class Unreadable(Exception):
    """A file that cannot be read as what it is taken for. field: of the source, the one to mend."""

    def __init__(self, rule: str, remedy: str, field: str = "paths") -> None:
        self.rule, self.remedy, self.field = rule, remedy, field
        super().__init__(rule)


class NoColumn(Unreadable):
    """A table without the column that holds the text."""

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        rule = f"there is no such column; there are: {', '.join(columns)}"
        remedy = "set text_field to the column that holds the text"
        if turns := next((name for name in TURNS if name in columns), None):
            remedy += f"; or chat: auto, where {turns} are conversations"
        super().__init__(rule, remedy, "text_field")


def checked(value: object, place: Place) -> Document | Bad:
    """A value of the text field as a document. A Reason passes through; bytes kept as surrogates are no UTF-8."""
    if isinstance(value, Reason):
        return Bad(value, place)
    if not isinstance(value, str):
        return Bad(NULL if value is None else NO_TEXT, place)
    if not value:
        return Bad(EMPTY, place)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            kept = "\udc80" <= value[error.start] <= "\udcff"
            return Bad(NOT_UTF8 if kept else SURROGATE, place)
    return Document(value, place)
