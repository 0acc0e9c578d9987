"""scripts/eval.py: figures of a model on files, as a table and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.backends.common.meeting import Meeting
from trainer.commands.launched import explained, refuse_other_files, refuse_other_options
from trainer.commands.target import refuse_target, write_result
from trainer.errors import ConfigError, DataError, Problem
from trainer.evaluation.chat_files import CHAT, RENDERING, Chats, Rendering, read_chats
from trainer.evaluation.files import DATA, Reading, Texts, read_texts
from trainer.evaluation.tasks import KEY as TASKS
from trainer.evaluation.tasks import Task, read_tasks
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.data.progress import Report
    from trainer.evaluation.chat import Spoken
    from trainer.evaluation.result import Result
    from trainer.generation.opened import Opened
    from trainer.generation.words import Words

T = TypeVar("T")
FILES = ("data", "tasks", "chat")
READING = ("format", "text_field", "document_unit")
LONGEST = 2048
"""Tokens of a window where none are asked for and the model could take more."""


@dataclass(frozen=True)
class Asked:
    """The command's options, as scripts/eval.py names them. stride: None: windows do not overlap."""

    model: str
    data: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    chat: tuple[str, ...] = ()
    seq_len: int | None = None
    stride: int | None = None
    batch: int = 8
    dtype: str | None = None
    output: str | None = None
    reading: Reading = field(default_factory=Reading)
    rendering: Rendering = field(default_factory=Rendering)
    base: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Asked:
        """From parsed arguments. Raises ConfigError with every mistake in them; imports no torch."""
        own = {name: options[name] for name in ("model", "seq_len", "stride", "batch", "dtype", "output", "base")}
        own |= {name: tuple(options[name] or ()) for name in FILES}
        reading = Reading(**{name: options[name] for name in READING})
        asked = cls(reading=reading, rendering=Rendering(**{name: options[name] for name in RENDERING}), **own)
        if problems := list(asked.problems()):
            raise ConfigError(problems)
        return asked

    def problems(self) -> Iterator[Problem]:
        """What does not fit together, or is out of range."""
        if not self.model:
            yield Problem("MODEL", "", "names a run, a checkpoint or a directory", "write its path")
        if not self.data and not self.tasks and not self.chat:
            yield Problem(DATA, None, "something to score the model on", "give files of text, --chat or --tasks")
        yield from self.rendering.problems(used=bool(self.chat))
        if self.seq_len is not None and self.seq_len < 1:
            yield Problem("--seq-len", self.seq_len, "1 or more", "give one, or leave it out")
        if self.stride is not None and not 1 <= self.stride <= (self.seq_len or self.stride):
            rule = "1 to --seq-len: each token is a target once"
            yield Problem("--stride", self.stride, rule, "give a smaller one, or leave it out")
        if self.batch < 1:
            yield Problem("--batch", self.batch, "1 or more", "give one, or leave it out")

    def settings(self) -> dict[str, Any]:
        """What all ranks of a launch have to be asked alike, by the options' names; of files, how many."""
        own = {name: getattr(self, name) for name in ("seq_len", "stride", "batch", "dtype")}
        return own | asdict(self.reading) | asdict(self.rendering) | {name: len(getattr(self, name)) for name in FILES}


def evaluate(asked: Asked, world: World) -> Iterator[str]:
    """Open the model on every rank and score it; lines for people, on rank 0. Raises ConfigError and DataError."""
    meeting = Meeting.join(world)
    if asked.output is not None:
        target = Path(asked.output)
        meeting.each(lambda: refuse_target(target, "--output") if world.rank == 0 else None)
    refuse_other_options(meeting, asked.settings())
    texts, tasks, chats = meeting.each(partial(_read, asked))
    files = ((DATA, texts), (TASKS, tasks), (CHAT, chats))
    refuse_other_files(meeting, [(option, one.name, one.digest) for option, some in files for one in some])
    from trainer.generation.opened import opened_model  # brings torch

    less = "a smaller --batch, a smaller --seq-len, fewer tokens of an answer, a smaller model"
    with explained(world.rank, less), opened_model(asked.model, asked.dtype, world, meeting, asked.base) as opened:
        if opened.words is None:
            rule = "has a tokenizer (tokenizer.json); a run keeps one where its text was tokenised by a file"
            raise ConfigError(Problem("MODEL", asked.model, rule, "save the model's fast tokenizer there"))
        said = _spoken(opened, meeting, chats, asked)
        result = _result(opened, opened.words, texts, tasks, said, asked)
    if world.rank:
        return
    yield from result.lines()
    if asked.output is not None:
        write_result(Path(asked.output), result.json(), "--output")


def _read(asked: Asked) -> tuple[list[Texts], list[Task], list[Chats]]:
    """Every file, and every problem of all of them."""
    problems: list[Problem] = []

    def found(read: Callable[[], list[T]]) -> list[T]:
        try:
            return read()
        except DataError as error:
            problems.extend(error.problems)
            return []

    texts = found(lambda: read_texts(asked.data, asked.reading))
    tasks = found(lambda: read_tasks(asked.tasks))
    chats = found(lambda: read_chats(asked.chat, asked.reading, asked.rendering))
    if problems:
        raise DataError(problems)
    return texts, tasks, chats


def _spoken(opened: Opened, meeting: Meeting, chats: Sequence[Chats], asked: Asked) -> list[Spoken]:
    """Conversations as the model's template has them. Collective: on every rank the same."""
    if not chats:
        return []
    from trainer.evaluation.chat import spoken, tokenizer_of

    by, report = asked.rendering, _report(opened)

    def written() -> list[Spoken]:
        tokenizer = tokenizer_of(opened)
        return [spoken(one, by, tokenizer, report) for one in chats]

    found = meeting.each(written)
    refuse_other_files(meeting, [("--chat-template", by.chat_template or "", one.rendering["digest"]) for one in found])
    return found


def _report(opened: Opened) -> Report | None:
    return partial(print, file=sys.stderr, flush=True) if opened.host.rank == 0 else None


def _result(
    opened: Opened,
    words: Words,
    texts: Sequence[Texts],
    tasks: Sequence[Task],
    said: Sequence[Spoken],
    asked: Asked,
) -> Result:
    from trainer.evaluation.chat import score_chat
    from trainer.evaluation.choices import score_choices
    from trainer.evaluation.exact import score_exact
    from trainer.evaluation.result import Result, subject_of
    from trainer.evaluation.text import score_text

    seq_len = min(opened.window, LONGEST) if asked.seq_len is None else asked.seq_len
    if seq_len > opened.window:
        rule = f"at most the {opened.window:,} tokens that the model is meant for"
        raise ConfigError(Problem("--seq-len", seq_len, rule, "give a smaller one, or leave it out"))
    stride = seq_len if asked.stride is None else asked.stride
    if stride > seq_len:
        raise ConfigError(Problem("--stride", stride, f"1 to {seq_len:,}, the window", "give a smaller one"))
    report = _report(opened)
    found = [score_text(opened, words, one, seq_len, stride, asked.batch, report) for one in texts]
    scores = [
        (score_choices if task.choices else score_exact)(opened, words, task, asked.batch, report) for task in tasks
    ]
    chats = [score_chat(opened, one, seq_len, stride, asked.batch, report) for one in said]
    return Result(subject_of(opened), found, scores, chats)
