"""Tasks from JSONL files: questions with choices, and prompts with the one right answer. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import DataError, Problem
from trainer.evaluation.files import Line, lines, parsed, read, refuse_surrogates

KEY = "--tasks"
DELIMITER = " "
"""Between a context and a choice, as in lm-eval."""
STOP = ("\n",)
NEW_TOKENS = 64
MOST = 20
"""Problems that are told of one file: whoever has more has them in every line."""


@dataclass(frozen=True)
class Choice:
    """A question. right: index of the right choice. delimiter: what stands between context and choice."""

    context: str
    choices: tuple[str, ...]
    right: int
    delimiter: str = DELIMITER


@dataclass(frozen=True)
class Exact:
    """A prompt, and the texts of which one is to follow it. stop: where an answer ends. tokens: at most so many."""

    prompt: str
    answers: tuple[str, ...]
    stop: tuple[str, ...] = STOP
    tokens: int = NEW_TOKENS


@dataclass(frozen=True)
class Task:
    """A file: either ``choices`` or ``exacts`` has items. digest: of its bytes."""

    name: str
    digest: str
    choices: tuple[Choice, ...] = ()
    exacts: tuple[Exact, ...] = ()


def read_tasks(given: Sequence[str]) -> list[Task]:
    """Raises DataError with the problems of all files, at most MOST of each."""
    found: list[Task] = []
    problems: list[Problem] = []
    for name in given:
        try:
            found.append(_task(name))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def _task(name: str) -> Task:
    data = read(Path(name), KEY)
    items: list[Choice | Exact] = []
    problems: list[Problem] = []
    kind: Callable[[Line], Choice | Exact] | None = None
    for place, text in lines(data, name):
        try:
            line = parsed(place, text)
            # The first line says what the file has: one without its choices is a mistake, and no task of another kind.
            kind = kind or (_exact if "prompt" in line.value else _choice)
            items.append(kind(line))
        except DataError as error:
            problems += error.problems
        if len(problems) >= MOST:
            break
    if problems:
        raise DataError(problems)
    if not items:
        raise DataError(
            Problem(KEY, name, "has a task on each line; it is empty", "write one, as docs/evaluate.md says")
        )
    choices = tuple(item for item in items if isinstance(item, Choice))
    exacts = tuple(item for item in items if isinstance(item, Exact))
    return Task(name, hashlib.sha256(data).hexdigest(), choices, exacts)


def _choice(line: Line) -> Choice:
    name = next((one for one in ("context", "question") if one in line.value), None)
    if name is None:
        raise _wrong(line, None, "has a field 'question' or 'context'", "write the text before the choices there")
    if "context" in line.value and "question" in line.value:
        raise _wrong(line, "question", "one of 'question' and 'context'", "put into one text what the model is to read")
    context = _text(line, name, empty=True)
    choices = _texts(line, "choices")
    if len(choices) < 2:
        raise _wrong(line, list(choices), "'choices' are two or more", "add what could be chosen instead")
    if "" in choices:
        raise _wrong(line, list(choices), "no choice is empty", "write what it stands for")
    right = _index(line, len(choices))
    if choices.count(choices[right]) > 1:
        raise _wrong(line, choices[right], "one choice is right; the right one stands there twice", "leave one out")
    delimiter = _text(line, "delimiter", empty=True) if "delimiter" in line.value else DELIMITER
    return Choice(context, choices, right, delimiter)


def _index(line: Line, count: int) -> int:
    given = _field(line, "answer")
    if isinstance(given, list) and len(given) != 1:
        rule = f"one choice is right; {len(given)} are marked"
        raise _wrong(line, given, rule, "mark one; a task with several right answers is several tasks")
    right = given[0] if isinstance(given, list) else given
    if type(right) is not int:
        raise _wrong(line, given, "'answer' is the number of the right choice, from 0", "write its number")
    if not 0 <= right < count:
        raise _wrong(line, right, f"'answer' is 0 to {count - 1}, the number of a choice", "count from 0")
    return right


def _exact(line: Line) -> Exact:
    prompt = _text(line, "prompt", empty=True)
    answers = _texts(line, "answer") if isinstance(line.value.get("answer"), list) else (_text(line, "answer"),)
    if not answers or not all(answer.strip() for answer in answers):
        raise _wrong(line, list(answers), "'answer' is a text, or texts of which each is right", "write one")
    stop = _texts(line, "stop") if "stop" in line.value else STOP
    if "" in stop:
        raise _wrong(line, list(stop), "a stop string is a text: every text has the empty one", "leave it out")
    tokens = line.value.get("tokens", NEW_TOKENS)
    if type(tokens) is not int or tokens < 1:
        raise _wrong(line, tokens, "'tokens' is 1 or more", f"leave it out, which is {NEW_TOKENS}")
    return Exact(prompt, answers, stop, tokens)


def _field(line: Line, name: str) -> Any:
    if name not in line.value:
        raise _wrong(
            line, sorted(line.value), f"has a field {name!r}", "add it; all lines of a file have the same kind"
        )
    return line.value[name]


def _text(line: Line, name: str, empty: bool = False) -> str:
    value = _field(line, name)
    if not isinstance(value, str) or not (value or empty):
        raise _wrong(line, value, f"{name!r} is a text", "write it in quotes")
    return refuse_surrogates(line.place, value)


def _texts(line: Line, name: str) -> tuple[str, ...]:
    value = _field(line, name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(line, value, f"{name!r} is a list of texts", 'write it as ["one", "two"]')
    return tuple(refuse_surrogates(line.place, one) for one in value)


def _wrong(line: Line, value: object, rule: str, remedy: str) -> DataError:
    shown = value if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    return DataError(Problem(line.place, shown, rule, remedy))
