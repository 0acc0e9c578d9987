"""What is read of a row: the text of one field, or a conversation out of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.chat.shapes import OTHER_SHAPE, Conversations, NoShape
from trainer.data.readers.found import MISSING, Bad, Document, NoColumn, Place, checked

Field = str | Conversations
"""The text field, or how rows are conversations."""
TEXT_FIELD = "text"
"""What it is where nobody says otherwise: of conversations that stands for no column."""


def field_of(source: SourceConfig) -> Field:
    """What is read of a source's rows."""
    if source.chat is None:
        return source.text_field
    return Conversations(source.chat, None if source.text_field == TEXT_FIELD else source.text_field)


def refuse_columns(field: Field, available: Sequence[str]) -> list[str]:
    """The columns of a table that are read. Raises NoColumn where one that is needed is not there."""
    if isinstance(field, Conversations):
        return field.columns(available)
    if field not in available:
        raise NoColumn(list(available))
    return [field]


def without_field(field: Field, columns: list[str]) -> NoColumn:
    """The error for a file in which no row has what is read."""
    return NoShape(field, columns) if isinstance(field, Conversations) else NoColumn(columns)


def taken(field: Field, row: Mapping[str, Any], place: Place) -> Document | Bad:
    """The document of a row; Bad with MISSING or OTHER_SHAPE where it does not have what is read."""
    if isinstance(field, Conversations):
        return field.document(row, place)
    return checked(row[field], place) if field in row else Bad(MISSING, place)


def lacks_field(found: Document | Bad) -> bool:
    """Whether a row does not have what is read."""
    return isinstance(found, Bad) and found.reason in (MISSING, OTHER_SHAPE)
