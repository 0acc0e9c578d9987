"""One conversation as text and as tokens, with what is trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from numpy.typing import NDArray

from trainer.data.chat.marking import Span, marked_spans, prefix_spans
from trainer.data.chat.probe import ANSWERED_AGAIN, PROBE, around_of, tools_of
from trainer.data.chat.settings import ChatSettings, chat_error
from trainer.data.chat.template import BEGIN, END, ChatTemplate, Failed
from trainer.data.chat.turns import ANSWERS, Turn
from trainer.data.readers.found import Aside, Bad, Document, Reason
from trainer.data.tokenizer import Tokenizer
from trainer.errors import ConfigError, Problem

TAGS, MARKING, PREFIXES, COMPLETIONS = "its generation tags", "marking", "differences of prefixes", "completions"
MESSAGES = 8
"""Different things that a template says which are told apart."""

REFUSED = "refused by the template"
NO_TEMPLATE = Reason("turns, and there is no chat template", "set data.chat_template", "chat")
NO_TELLING = Reason(
    "a conversation in which the template does not let the assistant's turns be told",
    "take a template with {% generation %} tags: data.chat_template",
    "chat",
)
NO_TARGET = Reason("a conversation without a token to train on", "leave the row out, or mend the template", "chat")
NO_CALLS = Reason("tool calls, and the template writes none", "take a template with tools: data.chat_template", "chat")
NO_RETURNS = Reason("a tool turn, and the template writes none", NO_CALLS.remedy, "chat")
NO_TOOLS = "conversations whose tools the template leaves out"
BY_PREFIXES = "conversations whose turns were told by differences of prefixes"


class Rendered(NamedTuple):
    """text: of a conversation. spans: what the assistant says in it, rising. rule: by which that was told."""

    text: str
    spans: list[Span]
    rule: str


class Tokens(NamedTuple):
    """ids: int32 [n]. trained: bool [n]. size: bytes of text that they stand for. aside: a word about it, if any."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    size: int
    aside: str = ""


Conversed = tuple[str, NDArray[np.int32], NDArray[np.bool_] | None, int]
"""A document, its ids, which of them are trained on, and the bytes that they stand for."""


def conversed(documents: Iterable[Document], chat: Chat, take: Callable[[Bad | Aside], None]) -> Iterator[Conversed]:
    """Conversations with their tokens. take: told of those that cannot be used, and what is worth a word."""
    for document in documents:
        try:
            found = chat.tokens(document.text)
        except Failed as failed:
            raise chat.endless(failed, str(document.place)) from None
        if isinstance(found, Reason):
            take(Bad(found, document.place))
            continue
        if found.aside:
            take(Aside(found.aside, document.place))
        yield document.text, found.ids, found.trained, found.size


class Chat:
    """Makes tokens of the conversations of a source. rule: how it tells what is trained on. warnings: for people."""

    def __init__(self, settings: ChatSettings, tokenizer: Tokenizer) -> None:
        """Raises ConfigError for a template that is none, does not end, or gives nothing to train on."""
        self._settings, self._tokenizer = settings, tokenizer
        self._refused: Counter[str] = Counter()
        self.warnings: list[str] = []
        added = tokenizer.inner.get_added_tokens_decoder()
        self._markers = [token.content for token in added.values() if len(token.content.split()) == 1]
        self._sizes = {index: len(token.content.encode()) for index, token in added.items() if token.special}
        self._template = None
        self.rule = COMPLETIONS
        if settings.template is not None:
            self._template = ChatTemplate(settings.template, settings.special, settings.today)
            self.rule = TAGS if self._template.marks else MARKING
            try:
                self._look(self._template)
            except Failed as failed:
                raise self.endless(failed, "two questions and two answers") from None

    def _look(self, template: ChatTemplate) -> None:
        """At what it makes of a conversation of ours. Raises Failed where it does not end."""
        self._around = around_of(template, self._markers, self._settings.special.get("eos_token"))
        self._tools = tools_of(template)
        try:
            rendered = self._rendered(template, PROBE, [], 0)
        except Failed:
            return  # it may want what ours does not have: its rows will tell
        if isinstance(rendered, Reason) or not any(
            ANSWERED_AGAIN in rendered.text[slice(*one)] for one in rendered.spans
        ):
            remedy = "take a template that writes what the assistant says: data.chat_template=FILE"
            problem = Problem(
                "data.chat_template", self._settings.name, "gives a token to train on; it gives none", remedy
            )
            raise ConfigError(problem)
        begin, end = rendered.spans[-1]
        if not rendered.text[begin:end].rstrip().endswith(tuple(self._markers)):
            self.warnings.append(
                f"warning: {self._settings.name} ends the assistant's turns with no token of their own:"
                " the model will not learn where to stop"
            )

    @cached_property
    def _inner(self) -> tokenizers.Tokenizer:
        """The tokenizer, to which what a template writes are tokens; only who makes tokens pays for it."""
        inner = tokenizers.Tokenizer.from_str(self._tokenizer.inner.to_str())
        inner.encode_special_tokens = False
        return inner

    def endless(self, failed: Failed, place: str) -> ConfigError:
        """The error for a template that does not end. place: of the conversation."""
        return chat_error(self._settings, f"ends for every conversation ({failed.words}: {place})")

    def described(self) -> str:
        """For people, in a line."""
        what = {"assistant": "the assistant's turns", "last": "the assistant's last turn", "all": "all tokens"}
        settings = self._settings
        said = f"conversations ({settings.shape}) by {settings.name}, trained on {what[settings.train_on]}, told by"
        said += f" {self.rule}"
        if self._settings.dated:
            said += f"; the template's today is {self._settings.date} on every day (data.chat_date)"
        return said

    def tokens(self, document: str) -> Tokens | Reason:
        """Of a conversation as ``Conversations`` has it, or why it cannot be used. Raises Failed for an endless one."""
        value = json.loads(document)
        if "prompt" in value:
            return self._completed(value["prompt"], value["completion"])
        if self._template is None:
            return NO_TEMPLATE
        turns, tools = value["messages"], value.get("tools", [])
        if any(turn.get("tool_calls") for turn in turns) and not self._tools.called:
            return NO_CALLS
        if any(turn["role"] in ANSWERS for turn in turns) and not self._tools.returned:
            return NO_RETURNS
        try:
            rendered = self._rendered(self._template, turns, tools, value.get("from", 0))
        except Failed as failed:
            if failed.endless:
                raise
            return self._refusal(failed)
        if isinstance(rendered, Reason):
            return rendered
        found = self._tokens(rendered)
        if not found.trained.any():
            return NO_TARGET
        aside = NO_TOOLS if tools and not self._tools.described else BY_PREFIXES if rendered.rule == PREFIXES else ""
        return found._replace(aside=aside)

    def _completed(self, prompt: str, completion: str) -> Tokens:
        """Text that spells a special token stays text, as everywhere but in what a template writes."""
        text = prompt + completion
        encoding = self._tokenizer.inner.encode(text, add_special_tokens=False)
        begin = 0 if self._settings.train_on == "all" else len(prompt)
        trained = np.append(inside(encoding.offsets, [(begin, len(text))]), True)
        return Tokens(np.array([*encoding.ids, self._tokenizer.eod], np.int32), trained, len(text.encode()))

    def _rendered(
        self, template: ChatTemplate, turns: Sequence[Turn], tools: list[dict[str, Any]], first: int
    ) -> Rendered | Reason:
        """first: the first turn that may be trained on. Raises Failed."""
        if template.marks:
            text, spans = _unmarked(template.render(turns, tools, marked=True))
            rule = TAGS
        else:
            text, rule = template.render(turns, tools), MARKING
            told = marked_spans(template, self._around, turns, tools, text)
            if told is None:
                told, rule = prefix_spans(template, self._around, turns, tools, text), PREFIXES
            if told is None:
                return NO_TELLING
            spans = told
        if self._settings.train_on == "all":
            return Rendered(text, [(0, len(text))], rule)
        if passed := sum(turn["role"] == "assistant" for turn in turns[:first]):
            if len(spans) != sum(turn["role"] == "assistant" for turn in turns):
                return NO_TELLING
            spans = spans[passed:]
        return Rendered(text, spans[-1:] if self._settings.train_on == "last" else spans, rule)

    def _tokens(self, rendered: Rendered) -> Tokens:
        encoding = self._inner.encode(rendered.text, add_special_tokens=False)
        trained = inside(encoding.offsets, rendered.spans)
        size = len(rendered.text.encode()) - sum(self._sizes.get(token, 0) for token in encoding.ids)
        return Tokens(np.array(encoding.ids, np.int32), trained, max(0, size))

    def _refusal(self, failed: Failed) -> Reason:
        if failed.words in self._refused or len(self._refused) < MESSAGES:
            self._refused[failed.words] += 1
            words = f"{REFUSED} ({failed.words})"
        else:
            words = REFUSED
        return Reason(words, "mend the conversation, or take another template: data.chat_template", "chat")


def _unmarked(text: str) -> tuple[str, list[Span]]:
    """The text without BEGIN and END, and what was between them."""
    parts, spans, size = [], [], 0
    for number, part in enumerate(text.split(BEGIN)):
        said, _, after = part.rpartition(END) if number else ("", "", part)
        if said:
            spans.append((size, size + len(said)))
        parts += [said, after]
        size += len(said) + len(after)
    return "".join(parts), spans


def inside(offsets: Sequence[Span], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Which tokens have a character in one of the spans, [tokens]. offsets: of each token. spans: rising, apart."""
    if not offsets or not spans:
        return np.zeros(len(offsets), np.bool_)
    begins, ends = np.array(offsets, np.int64).T
    firsts, lasts = np.array(spans, np.int64).T
    place = np.minimum(np.searchsorted(lasts, begins, side="right"), len(spans) - 1)
    return (begins < lasts[place]) & (ends > firsts[place]) & (begins < ends)
