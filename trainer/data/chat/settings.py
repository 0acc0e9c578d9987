"""How a source's conversations are rendered: what decides it, said once, for a run and for workers of a preparation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.tokenizer import Tokenizer
from trainer.errors import ConfigError, Problem
from trainer.pretrained.tokenizer_files import template_text, tokenizer_files

VERSION = 1
"""Raise it when the same settings give the same conversations other tokens, or other targets."""
KEY = "data.chat_template"
REMEDY = "take the tokenizer's files as its publisher gives them, or name a file: data.chat_template=FILE"
DEFAULT = "default"


@dataclass(frozen=True)
class ChatSettings:
    """shape, column: as ``Conversations`` has them. template: its text; None where there is none. name: for people.

    special: tokens by role. date: what a template takes for today. train_on: data.train_on.
    """

    shape: str
    column: str | None
    template: str | None
    name: str
    special: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    train_on: str = "assistant"

    @property
    def today(self) -> datetime:
        """The date, as a template has it."""
        return datetime.fromisoformat(self.date)

    @property
    def dated(self) -> bool:
        """Whether the template may write today's date."""
        return "strftime_now" in (self.template or "")

    @property
    def mark(self) -> str:
        """Digest of all that decides tokens and targets."""
        said = [VERSION, self.shape, self.column, self.template, sorted(self.special.items()), self.train_on]
        content = json.dumps([*said, self.date if self.dated else None])
        return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For a pipe."""
        return asdict(self)

    def described(self) -> dict[str, Any]:
        """For a manifest."""
        return {"shape": self.shape, "template": self.name, "train_on": self.train_on, "digest": self.mark}


def chat_error(settings: ChatSettings, rule: str) -> ConfigError:
    """A template that does not do what templates do."""
    return ConfigError(Problem(KEY, settings.name, rule, REMEDY))


def settings_of(source: SourceConfig, config: DataConfig, tokenizer: Tokenizer) -> ChatSettings:
    """Of a source whose shape is told. Raises ConfigError where there is no template that it needs."""
    assert source.chat is not None, "a source of conversations"
    assert tokenizer.file is not None, "the rules ask for a tokenizer of a file"
    files = tokenizer_files(tokenizer.file, tokenizer.eod_token)
    name, text = template_named(config.chat_template, files.templates)
    if text is None and source.chat != "prompt_completion":
        rule = f"the tokenizer has a chat template (chat_template.jinja); {tokenizer.file.parent} has none"
        raise ConfigError(Problem(KEY, None, rule, "name a file: data.chat_template=FILE"))
    column = None if source.text_field == "text" else source.text_field
    return ChatSettings(source.chat, column, text, name, files.tokens, config.chat_date, config.train_on)


def template_named(given: str | None, templates: Mapping[str, str]) -> tuple[str, str | None]:
    """A template's name for people, and its text; None where the tokenizer has none.

    given: data.chat_template. Raises ConfigError for a file that cannot be read.
    """
    if given is None or given in templates:
        name = given or DEFAULT
        said = "the tokenizer's template" + ("" if name == DEFAULT else f" {name}")
        return (said, templates[name]) if name in templates else ("no template", None)
    try:
        return Path(given).name, template_text(Path(given).expanduser())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a ~ of nobody's
        why = getattr(error, "strerror", None) or str(error)
        named = f", or one of the tokenizer's: {', '.join(templates)}" if templates else ""
        raise ConfigError(Problem(KEY, given, f"a file that can be read ({why}){named}", "correct the path")) from None
