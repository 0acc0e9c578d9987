"""The sources of a run that are conversations: their shape, told by their columns, and what renders them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.chat.settings import ChatSettings, settings_of
from trainer.data.chat.shapes import AUTO, NEEDED, OTHER_SHAPE
from trainer.data.documents import found_in, found_in_inputs, inputs_of
from trainer.data.paths import source_error
from trainer.data.progress import Report
from trainer.data.readers.found import Bad, Document, Found
from trainer.data.tokenizer import Tokenizer
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.data.chat.conversation import Chat

FILES, ROWS = 64, 100
"""Of a source and of a file: as many are looked at, at the most, to tell its shape."""


def told(sources: Sequence[SourceConfig], report: Report | None = None) -> list[SourceConfig]:
    """The sources, with a shape where it was left to the columns. Raises DataError where these are of two shapes."""
    return [_told(source, report) if source.chat == AUTO else source for source in sources]


def _told(source: SourceConfig, report: Report | None) -> SourceConfig:
    usable: dict[str, str] = {}
    unusable: dict[str, str] = {}
    for name, shape, any_usable in _shapes(source):
        (usable if any_usable else unusable).setdefault(shape, name)
    shapes = usable or unusable  # where all of a shape are bad, whoever reads them says why
    if len(shapes) != 1:
        known = "; ".join(" and ".join(columns) for columns in NEEDED.values())
        rule = f"rows that can be used, of one shape: {known}"
        if shapes:
            rule = (
                f"of one shape; there are rows of {' and '.join(f'{shape} ({name})' for shape, name in shapes.items())}"
            )
        remedy = "set chat to the one that counts: others are passed over" if shapes else "look at the rows' columns"
        raise source_error(source, "chat", AUTO, rule, remedy)
    (shape,) = shapes
    if report is not None:
        report(f"  {source.name}: conversations of the shape {shape}, by its columns")
    return replace(source, chat=shape)


def _shapes(source: SourceConfig) -> Iterator[tuple[str, str, bool]]:
    """Names of files, the shapes in their first rows, and whether one of these is a conversation."""
    if source.kind != "files":
        for shape in NEEDED:
            if (usable := _usable(found_in(replace(source, chat=shape))[0])) is not None:
                yield source.name, shape, usable
        return
    for file in inputs_of(source)[:FILES]:
        for shape in NEEDED:
            if (usable := _usable(found_in_inputs(replace(source, chat=shape), [file]))) is not None:
                yield str(file.path), shape, usable


def _usable(rows: Iterator[Found]) -> bool | None:
    """Whether one of the first is a conversation; None where none has the columns of its shape."""
    found = None
    try:
        for row in islice(rows, ROWS):
            if isinstance(row, Document):
                return True
            if isinstance(row, Bad) and row.reason.field == "chat" and row.reason != OTHER_SHAPE:
                found = False
    except DataError as error:
        if not error.problems[0].key.endswith(".chat"):
            raise
    return found


def chat_of(
    source: SourceConfig, config: DataConfig, tokenizer: Tokenizer, report: Report | None = None
) -> tuple[Chat, ChatSettings] | None:
    """What makes tokens of a source's conversations; None of plain text. Raises ConfigError."""
    if source.chat is None:
        return None
    from trainer.data.chat.conversation import Chat  # brings jinja2

    settings = settings_of(source, config, tokenizer)
    chat = Chat(settings, tokenizer)
    if report is not None:
        report(f"  {source.name}: {chat.described()}")
        for warning in chat.warnings:
            report(warning)
    return chat, settings
