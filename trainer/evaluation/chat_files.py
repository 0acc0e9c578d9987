"""Conversations that a model is scored on, read before the model is. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.chat.shapes import AUTO
from trainer.data.chat.sources import told
from trainer.data.documents import found_documents, inputs_of
from trainer.data.readers.found import Document
from trainer.data.skipped import STOP, Policy, Skipped
from trainer.errors import DataError, Problem
from trainer.evaluation.files import Reading, digest_of, refuse_remote
from trainer.evaluation.options import in_options

CHAT = "--chat"
RENDERING = ("shape", "train_on", "chat_template", "chat_date", "bad_documents")


@dataclass(frozen=True)
class Rendering:
    """How conversations are read and written, as training's keys say it. shape: data.sources[].chat; the others: of
    data. bad_documents: stop, where training skips: two models are compared on the same conversations.
    """

    shape: str = AUTO
    train_on: str = DataConfig.train_on
    chat_template: str | None = None
    chat_date: str = DataConfig.chat_date
    bad_documents: str = STOP

    def problems(self, used: bool) -> Iterator[Problem]:
        """What is out of range, or said for nothing. used: whether there are conversations."""
        for one in fields(self):
            if not used and (value := getattr(self, one.name)) != one.default:
                rule = "is about conversations, and there are none"
                yield Problem(f"--{one.name.replace('_', '-')}", value, rule, f"add {CHAT}, or leave it out")
        try:
            datetime.fromisoformat(self.chat_date)
        except ValueError:
            yield Problem("--chat-date", self.chat_date, "a date: YYYY-MM-DD", f"use {DataConfig.chat_date}")

    def as_data(self) -> DataConfig:
        """As training has it."""
        return DataConfig(chat_template=self.chat_template, chat_date=self.chat_date, train_on=self.train_on)


@dataclass(frozen=True)
class Chats:
    """What one --chat names. source: it, with its shape told. root: what all files lie below. files: how many.

    documents: its conversations, as ``Conversations`` has them. skipped: rows that are none. digest: of the documents.
    """

    name: str
    source: SourceConfig
    root: str
    files: int
    documents: tuple[Document, ...]
    skipped: Skipped
    digest: str


def read_chats(given: Sequence[str], how: Reading, by: Rendering) -> list[Chats]:
    """Raises DataError with the problems of all: what is missing or no conversation, and of each the first bad row."""
    found: list[Chats] = []
    problems: list[Problem] = []
    for name in given:
        try:
            with in_options(CHAT, name):
                found.append(_chats(name, how, by))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def _chats(name: str, how: Reading, by: Rendering) -> Chats:
    refuse_remote(name, CHAT)
    source = SourceConfig(name=CHAT, paths=[name], format=how.format, text_field=how.text_field, chat=by.shape)
    files = inputs_of(source)
    if not any(file.size for file in files):
        raise DataError(Problem(CHAT, name, "holds a conversation; it is empty", "name files that are not"))
    (source,) = told([source])
    policy = Policy(by.bad_documents)
    found, root = found_documents(source, policy)
    documents = tuple(found)
    return Chats(
        name=name,
        source=source,
        root=root,
        files=len(files),
        documents=documents,
        skipped=policy.skipped,
        digest=digest_of(one.text for one in documents),
    )
