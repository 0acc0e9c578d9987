"""Chat templates, as transformers renders them; a template is other people's code, and runs in jinja2's sandbox.

Nothing else of a directory is executed. The sandbox has no way to files, modules or attributes with underscores, and
what a template is given it cannot alter. Its time and memory are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from trainer.data.chat.bounded import bounded
from trainer.errors import ConfigError, Problem

KEY = "chat_template"
REMEDY = "take the tokenizer's files as its publisher gives them, or leave --chat out"
BEGIN, END = "\ufdd0", "\ufdd1"
"""Around what a template marks for training; no text has these: Unicode keeps them from being characters."""

Message = Mapping[str, Any]
"""role (system, user, assistant, tool) and content; tool_calls and the like."""


class Failed(Exception):
    """A template that raised. words: what, in a line. endless: its time was over."""

    def __init__(self, error: Exception) -> None:
        self.words, self.endless = _told(error), isinstance(error, TimeoutError)
        super().__init__(self.words)


class ChatTemplate:
    """A compiled template. special: tokens by their roles, bos_token and the like, which templates write.

    marks: whether the template says itself what the assistant says. dated: whether it may write today's date.
    """

    def __init__(self, text: str, special: Mapping[str, str], today: datetime | None = None) -> None:
        """today: what a template takes for the present; None: that. Raises ConfigError where it is no template."""
        self._special = dict(special)
        self._environment = _environment(today)
        self._generation = cast(_Generation, self._environment.extensions[_Generation.identifier])
        try:
            with bounded():
                self._template = self._environment.from_string(text)
        except Exception as error:  # jinja2 works constants out as it compiles
            raise _wrong(f"is a template ({_told(error)})") from None
        self.marks = bool(self._generation.found)
        self.dated = "strftime_now" in text

    def __call__(self, messages: Sequence[Message], answer: bool = True) -> str:
        """The text of a conversation. answer: it ends where the assistant begins to speak.

        Raises ConfigError where the template raises.
        """
        try:
            return self.render(messages, answer=answer)
        except Failed as failed:
            roles = ", ".join(str(message.get("role", "?")) for message in messages)
            raise _wrong(f"renders messages of {roles} ({failed.words})") from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        answer: bool = False,
        marked: bool = False,
    ) -> str:
        """The text of a conversation. marked: with BEGIN and END around what the template marks. Raises Failed."""
        plain = [dict(message) for message in messages]
        given = None if not tools else [dict(tool) for tool in tools]
        self._generation.marking = marked
        try:
            with bounded():
                text = self._template.render(
                    messages=plain, tools=given, documents=None, add_generation_prompt=answer, **self._special
                )
            text.encode()  # half of a surrogate pair is no text to a tokenizer
            return text
        except Exception as error:  # whatever other people's code does
            raise Failed(error) from None


def _wrong(rule: str) -> ConfigError:
    return ConfigError(Problem(KEY, "the tokenizer's", rule, REMEDY))


def _told(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{f', line {line}' if line else ''}"


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what an assistant says, for training. found: whether it stands in the template.

    marking: whether BEGIN and END are put around it.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.found = self.marking = False

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The body, in a scope of its own, as transformers has it."""
        self.found = True
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        said = str(caller())
        return f"{BEGIN}{said}{END}" if self.marking else said


def _environment(today: datetime | None) -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = partial(_now, today)
    made.globals["dict"] = _Dictionary()
    made.globals["namespace"] = _Namespace
    return made


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """jinja2's own escapes for HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(today: datetime | None, form: str) -> str:
    return (today or datetime.now()).strftime(form)


class _Dictionary:
    """``dict`` without the type's attributes, by which a template could leave the sandbox."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        """As of the type."""
        return dict.fromkeys(*values)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's own lets a template store names with underscores."""

    def __init__(*values: Any, **named: Any) -> None:
        self, values = values[0], values[1:]
        kept = dict(*values, **named)
        for name in kept:
            _refuse_hidden(name)
        jinja2.utils.Namespace.__init__(self, kept)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_hidden(name)
        super().__setitem__(name, value)


def _refuse_hidden(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template may not store {name!r}")
