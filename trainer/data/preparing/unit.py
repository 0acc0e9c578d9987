"""One unit of a source: read, tokenised and left in a directory of its own, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.chat.settings import ChatSettings
from trainer.data.preparing.duplicates import Drops
from trainer.data.preparing.passed_over import PassedOver
from trainer.data.preparing.reading import UnitText
from trainer.data.progress import Advance
from trainer.data.readers.found import Document
from trainer.data.readers.parts import Part
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizing import Part as Amount
from trainer.data.tokenizing import Tokenized, store, tokenize
from trainer.files import sync

if TYPE_CHECKING:
    from trainer.data.chat.conversation import Chat, Conversed

RESULT = "unit.json"


@dataclass
class Task:
    """All that a worker needs to know. compress: whether reference documents are wanted of it. drops: duplicates.

    chat: settings of what renders conversations; None of plain text.
    """

    text: UnitText
    fraction: float
    directory: Path
    key: str
    compress: bool
    drops: Drops | None
    chat: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """For a pipe."""
        drops = None if self.drops is None else asdict(self.drops)
        fields = self.__dict__ | {"text": self.text.to_json(), "directory": str(self.directory), "drops": drops}
        return dict(fields)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Task:
        """What ``to_json`` made."""
        text, directory, drops = (value.pop(name) for name in ("text", "directory", "drops"))
        made = None if drops is None else Drops(**drops)
        return Task(text=UnitText.from_json(text), directory=Path(directory), drops=made, **value)


@dataclass
class Result:
    """What a unit has come to.

    digests: of the files that begin in it. parts: of those that are read in several. compressed: whether reference
    documents were wanted. removed: documents that others like them had come before.
    """

    key: str
    tokenized: Tokenized
    digests: dict[str, str]
    parts: list[tuple[str, Part]]
    passed_over: PassedOver
    compressed: bool
    removed: int

    @staticmethod
    def read(directory: Path, key: str) -> Result | None:
        """The result in a directory; None where there is none, or one of another key."""
        try:
            value = json.loads((directory / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if value["key"] != key:
            return None
        train, heldout, reference, unknown = value.pop("tokenized").values()
        tokenized = Tokenized(Amount(**train), Amount(**heldout), [tuple(row) for row in reference], unknown)
        parts = [(path, Part(**part)) for path, part in value.pop("parts")]
        passed_over = PassedOver.of(value.pop("passed_over"))
        return Result(tokenized=tokenized, parts=parts, passed_over=passed_over, **value)


def prepare_unit(task: Task, tokenizer: Tokenizer, advance: Advance) -> None:
    """Leave a unit's token files and its result in task.directory. Raises DataError; OSError where it cannot write."""
    work = task.directory.with_name(f".{task.directory.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    digests = task.text.digests()
    kept = _Kept(task.text.documents(), [] if task.drops is None else task.drops.read())
    if task.chat is None:
        texts = (document.text for document, _ in kept)
        tokenized = tokenize(texts, tokenizer, task.fraction, work, advance, task.compress)
    else:
        said = _conversed(kept, task, tokenizer)
        tokenized = store(said, tokenizer, task.fraction, work, advance, task.compress, masked=True)
    cut, passed_over = task.text.cut(), task.text.passed_over
    result = Result(task.key, tokenized, digests, cut, passed_over, task.compress, kept.removed)
    (work / RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")
    sync(work / RESULT)
    sync(work)
    shutil.rmtree(task.directory, ignore_errors=True)
    os.rename(work, task.directory)
    sync(task.directory.parent)


def _conversed(kept: _Kept, task: Task, tokenizer: Tokenizer) -> Iterator[Conversed]:
    from trainer.data.chat.conversation import conversed  # brings jinja2

    assert task.chat is not None, "a source of conversations"
    chat = _chat(json.dumps(task.chat), tokenizer)
    pieces = [0]

    def documents() -> Iterator[Document]:
        for document, pieces[0] in kept:
            yield document

    return conversed(documents(), chat, lambda found: task.text.take(found, pieces[0]))


@lru_cache(maxsize=4)
def _chat(settings: str, tokenizer: Tokenizer) -> Chat:
    """A worker has many units of few sources."""
    from trainer.data.chat.conversation import Chat

    return Chat(ChatSettings(**json.loads(settings)), tokenizer)


class _Kept:
    """Documents without those at some places. removed: how many were left out."""

    def __init__(self, documents: Iterator[tuple[Document, int]], drops: list[int]) -> None:
        self._documents, self._drops = documents, drops
        self.removed = 0

    def __iter__(self) -> Iterator[tuple[Document, int]]:
        for index, found in enumerate(self._documents):
            if self.removed < len(self._drops) and self._drops[self.removed] == index:
                self.removed += 1
            else:
                yield found
