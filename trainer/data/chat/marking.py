r"""Where the assistant's turns stand in the text that a template makes of a conversation, told without its help.

The conversation is rendered once more with markers in the place of what turns say. Where putting the words back gives
the text itself, each marker tells where its words stand, whatever the template drops, trims or adds. Tags as in
<think> stay as they are, and so does white space around words: templates look at both.

An assistant's turn begins behind what the template writes where the assistant is to speak, and ends with the token
that ends a turn. Where markers do not tell, the texts of the conversation's beginnings do, if each begins the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from trainer.data.chat.probe import Around
from trainer.data.chat.template import ChatTemplate
from trainer.data.chat.turns import THOUGHTS, Turn, name_of

Span = tuple[int, int]
"""Characters of a text: the first, and the one behind the last."""
OPEN, CLOSE = "\ufdd2", "\ufdd3"
MARKER = re.compile(f"{OPEN}([0-9]+){CLOSE}")
TAG = re.compile(r"(</?[^<>\s]{1,40}>|\[/?[A-Z_]{1,20}\])")


class Said(NamedTuple):
    """Where the words behind a marker stand. turn: whose they are. content: whether they are of its content."""

    turn: int
    content: bool
    begin: int
    end: int


class Marked:
    """A conversation with markers in the place of its words."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._words: list[tuple[int, bool, str]] = []
        self.turns = [self._marked(number, turn) for number, turn in enumerate(turns)]

    def _marked(self, number: int, turn: Turn) -> Turn:
        fields = ("content", *(THOUGHTS if turn["role"] == "assistant" else ()))
        found = {
            name: self._text(number, name == "content", turn[name])
            for name in fields
            if isinstance(turn.get(name), str)
        }
        calls = [self._call(number, call) for call in turn.get("tool_calls", [])]
        return {**turn, **found, **({"tool_calls": calls} if calls else {})}

    def _call(self, number: int, call: dict[str, Any]) -> dict[str, Any]:
        name = self._marker(number, False, name_of(call))
        if isinstance(called := call.get("function"), dict):
            return {**call, "function": {**called, "name": name}}
        return {**call, "name": name}

    def _text(self, number: int, content: bool, text: str) -> str:
        parts = []
        for piece in TAG.split(text):
            if not TAG.fullmatch(piece) and (words := piece.strip()):
                begin = len(piece) - len(piece.lstrip())
                piece = f"{piece[:begin]}{self._marker(number, content, words)}{piece[begin + len(words) :]}"
            parts.append(piece)
        return "".join(parts)

    def _marker(self, number: int, content: bool, words: str) -> str:
        self._words.append((number, content, words))
        return f"{OPEN}{len(self._words) - 1}{CLOSE}"

    def put_back(self, text: str) -> tuple[str, list[Said]]:
        """The text with the words in it again, and where they stand."""
        parts, said, at, size = [], [], 0, 0
        for match in MARKER.finditer(text):
            turn, content, words = self._words[int(match[1])]
            size += match.start() - at
            said.append(Said(turn, content, size, size + len(words)))
            parts += [text[at : match.start()], words]
            at, size = match.end(), size + len(words)
        return "".join([*parts, text[at:]]), said


def marked_spans(
    template: ChatTemplate, around: Around, turns: Sequence[Turn], tools: list[dict[str, Any]], text: str
) -> list[Span] | None:
    """Of each assistant's turn in ``text``; None where markers do not tell. Raises Failed."""
    marked = Marked(turns)
    found, said = marked.put_back(template.render(marked.turns, tools))
    if found != text:
        return None
    spans = []
    for number, turn in enumerate(turns):
        if turn["role"] == "assistant":
            own = [one for one in said if one.turn == number]
            if not own or (span := _span(own, said, around, text, turn, marked.turns[number])) is None:
                return None
            spans.append(span)
    rising = all(one[1] <= other[0] for one, other in pairwise(spans))
    return spans if rising else None


def _span(own: list[Said], said: list[Said], around: Around, text: str, turn: Turn, marked: Turn) -> Span | None:
    """own: the words of the turn. said: those of all."""
    first, last = own[0].begin, own[-1].end
    before = max((one.end for one in said if one.end <= first), default=0)
    behind = min((one.begin for one in said if one.begin >= last), default=len(text))
    if any(one.turn != own[0].turn for one in said if first <= one.begin < last):
        return None  # the words of others between
    content = MARKER.split(marked["content"])
    begin = around.begin(text[before:first])
    if begin is None:
        if not own[0].content:
            return None
        begin = first - before - _overlap(text[before:first], content[0])
    end = around.end(text[last:behind])
    if end is None:
        if turn.get("tool_calls"):
            return None
        end = len(content[-1]) if text[last:behind].startswith(content[-1]) else 0
    return before + begin, last + end


def _overlap(text: str, lead: str) -> int:
    """How many characters at the end of a text are the end of ``lead``."""
    return next(size for size in range(min(len(lead), len(text)), -1, -1) if text.endswith(lead[len(lead) - size :]))


def prefix_spans(
    template: ChatTemplate, around: Around, turns: Sequence[Turn], tools: list[dict[str, Any]], text: str
) -> list[Span] | None:
    """Of each assistant's turn, by what its conversation's beginnings come to; None where these begin otherwise.

    Raises Failed.
    """
    spans = []
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = template.render(turns[:number], tools, answer=True) if number else ""
        whole = template.render(turns[: number + 1], tools)
        if not (text.startswith(before) and text.startswith(whole) and len(before) < len(whole)):
            return None
        said = whole[len(before) :]
        if (end := around.last_end(said)) is None and around.ends:
            return None  # what follows on the turn cannot be told from it
        spans.append((len(before), len(before) + (end or len(said))))
    return spans
