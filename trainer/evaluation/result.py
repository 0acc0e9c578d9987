"""What one evaluation found: a table for people, a JSON file for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.checkpoint.manifest import read_manifest
from trainer.evaluation.chat import ChatResult
from trainer.evaluation.choices import MEASURES, NOT_FINITE, ChoiceResult
from trainer.evaluation.exact import ExactResult
from trainer.evaluation.text import TextResult
from trainer.generation.opened import Opened
from trainer.pretrained.source import IMPORTED

FORMAT = 1
"""Of the JSON file; a field that changes its meaning makes it another."""


@dataclass(frozen=True)
class Subject:
    """What was evaluated. path: of the checkpoint or the directory. step, imported: of a checkpoint only.

    dtype: that it computed in. ranks: over which it was cut.
    """

    given: str
    kind: str
    path: str
    step: int | None
    family: str
    dtype: str
    window: int
    ranks: int

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:,}"
        return f"{self.given}{step}: {self.family} in {self.dtype} ({self.path})"


def subject_of(opened: Opened) -> Subject:
    """Raises OSError or Unsound where the checkpoint has gone meanwhile."""
    source, step, kind = opened.source, None, "directory"
    if source.stored is not None:
        manifest = read_manifest(source.path)
        step, kind = manifest.step, "import" if IMPORTED in manifest.topology else "checkpoint"
    dtype = str(opened.dtype).removeprefix("torch.")
    path, family = str(source.path.resolve()), opened.model.family
    return Subject(source.given, kind, path, step, family, dtype, opened.window, opened.host.size)


@dataclass(frozen=True)
class Result:
    """Everything that was found."""

    subject: Subject
    texts: Sequence[TextResult] = ()
    tasks: Sequence[ChoiceResult | ExactResult] = ()
    chats: Sequence[ChatResult] = ()

    def json(self) -> dict[str, Any]:
        """For programs: numbers that are none (a model that gives no finite loss) are null."""
        every = {"data": self.texts, "tasks": self.tasks, "chats": self.chats}
        value = {
            **{"format": FORMAT, "model": asdict(self.subject)},
            **{name: [asdict(one) for one in some] for name, some in every.items()},
        }
        found: dict[str, Any] = _finite(value)
        return found

    def lines(self) -> Iterator[str]:
        """For people."""
        yield str(self.subject)
        if self.texts:
            columns = ("data", "targets", "windows", "loss", "perplexity", "bits/byte")
            rows = [
                (one.name, f"{one.targets:,}", f"{one.windows:,} x {one.seq_len:,}", *_figures(one))
                for one in self.texts
            ]
            yield from ("", *table(columns, rows))
        if self.chats:
            head = ("chat", "conversations", "targets", "windows", "loss", "perplexity")
            yield from ("", *table(head, [_of_chat(one) for one in self.chats]))
        choices = [one for one in self.tasks if isinstance(one, ChoiceResult)]
        if choices:
            shares = [(one.name, f"{one.items:,}", *(f"{getattr(one, m):.4f}" for m in MEASURES)) for one in choices]
            yield from ("", *table(("multiple choice", "items", *MEASURES), shares))
        exacts = [one for one in self.tasks if isinstance(one, ExactResult)]
        if exacts:
            few = [(one.name, f"{one.items:,}", f"{one.exact_match:.4f}") for one in exacts]
            yield from ("", *table(("exact match", "items", "share"), few))
        yield from self._notes()

    def _notes(self) -> Iterator[str]:
        """What was not scored as it stands in the files, and what of conversations was."""
        for chat in self.chats:
            yield f"{chat.name}: {chat.described}"
            yield from chat.reasons.lines(chat.name)
        for one in self.tasks:
            if one.truncated:
                yield f"{one.name}: {one.truncated:,} contexts were cut from their left to fit the model's window"
            if isinstance(one, ChoiceResult) and (broken := one.picked["acc"].count(NOT_FINITE)):
                yield f"{one.name}: {broken:,} items count as wrong: the model gives no finite probabilities"
            if isinstance(one, ChoiceResult) and one.own_encoding:
                rule = "had no token of their own behind the context, and were encoded alone"
                yield f"{one.name}: {one.own_encoding:,} choices {rule}"


def _figures(one: TextResult) -> tuple[str, str, str]:
    return *_two(one), f"{one.bits_per_byte:.4f}"


def _of_chat(one: ChatResult) -> tuple[str, ...]:
    windows = f"{one.windows:,} x {one.seq_len:,}"
    return one.name, f"{one.conversations:,}", f"{one.targets:,}", windows, *_two(one)


def _two(one: TextResult | ChatResult) -> tuple[str, str]:
    return f"{one.loss:.4f}", f"{one.perplexity:,.4f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """In columns, of which the first is on the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *others = zip(row, widths, strict=True)
        yield "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
