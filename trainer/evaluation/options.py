"""Mistakes of a source, told in the options of a command: it has these in the place of a source's keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from trainer.errors import ConfigError, DataError, Problem

SOURCE = "data.sources["
SPELT = {
    "the source's format": "--format",
    "set format": "set --format",
    "text_field": "--text-field",
    "document_unit=": "--document-unit ",
    "data.bad_documents=": "--bad-documents ",
    "data.bad_documents": "--bad-documents",
    "data.chat_template=": "--chat-template ",
    "data.chat_template": "--chat-template",
    "data.chat_date": "--chat-date",
    "set chat to": "set --shape to",
    "chat=": "--shape ",
}
"""Keys as rules and remedies spell them, and the options that stand for them; in this order."""


@contextmanager
def in_options(paths: str, name: str) -> Iterator[None]:
    """Problems that are raised within name options. paths: the option whose value, ``name``, is read."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(_told(problem, paths, name) for problem in error.problems) from None


def _told(problem: Problem, paths: str, name: str) -> Problem:
    key, rule = problem.key, problem.rule
    if key.startswith(SOURCE):
        field = key.rpartition(".")[2]
        key = {"paths": paths, "chat": "--shape"}.get(field, f"--{field.replace('_', '-')}")
        if name not in f"{problem.value} {rule}":
            rule += f" ({name})"
    return replace(problem, key=SPELT.get(key, key), rule=spelt(rule), remedy=spelt(problem.remedy))


def spelt(words: str) -> str:
    """Words with options in the place of keys."""
    for key, option in SPELT.items():
        words = words.replace(key, option)
    return words
