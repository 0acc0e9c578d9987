"""What a template writes around turns, learnt from conversations of our own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.data.chat.template import ChatTemplate, Failed
from trainer.data.chat.turns import Turn

ASKED, ANSWERED, ASKED_AGAIN, ANSWERED_AGAIN = (f"\ufdd4{name}\ufdd5" for name in ("ua", "aa", "ub", "ab"))
TOLD, TOOL, CALLED, RETURNED = (f"\ufdd4{name}\ufdd5" for name in ("told", "tool", "call", "back"))
WORD = re.compile(r"<[^<>\s]*>|\s+|[^\s<]+|<")
PROBE: list[Turn] = [
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": ANSWERED},
    {"role": "user", "content": ASKED_AGAIN},
    {"role": "assistant", "content": ANSWERED_AGAIN},
]
FUNCTION = {"name": TOOL, "description": "looks", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": CALLED, "arguments": {}}}
CALLING: list[Turn] = [
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": RETURNED, "tool_call_id": "abcdefghi"},
    {"role": "assistant", "content": ANSWERED},
]


@dataclass(frozen=True)
class Around:
    """begins: what is written where the assistant is to speak, and its beginnings, the longest first.

    ends: tokens that end a turn of the assistant; none where the template writes none.
    """

    begins: tuple[str, ...]
    ends: tuple[str, ...]

    def begin(self, gap: str) -> int | None:
        """Behind the header in the text between the turn before and the assistant's words; None without one."""
        for begin in self.begins:
            if (at := gap.rfind(begin)) >= 0:
                return at + len(begin)
        return None

    def end(self, gap: str) -> int | None:
        """Behind the token that ends the turn, in the text between its words and the next turn's; None without one."""
        found = [at + len(end) for end in self.ends if (at := gap.find(end)) >= 0]
        return min(found, default=None)

    def last_end(self, said: str) -> int | None:
        """The same, in a text that ends with the turn."""
        found = [at + len(end) for end in self.ends if (at := said.rfind(end)) >= 0]
        return max(found, default=None)


@dataclass(frozen=True)
class Tools:
    """Whether a template writes descriptions of functions, calls of them, and what they return."""

    described: bool
    called: bool
    returned: bool


def around_of(template: ChatTemplate, specials: Sequence[str], eos: str | None) -> Around:
    """specials: tokens that are no text. eos: the one that ends a text, for templates that refuse our conversation.

    Raises Failed where the template does not end.
    """
    pattern = re.compile("|".join(re.escape(one) for one in sorted(specials, key=len, reverse=True)) or "(?!)")
    try:
        begins = _begins(_header(template), pattern)
        ends = _ends(template, pattern)
    except Failed as failed:
        if failed.endless:
            raise
        return Around((), () if eos is None else (eos,))
    return Around(begins, ends)


def _header(template: ChatTemplate) -> str:
    """What a text ends with where the assistant is to speak; nothing of a template that always ends so."""
    silent, asked = (template.render(PROBE[:1], answer=answer) for answer in (False, True))
    return asked.removeprefix(silent) if asked.startswith(silent) else ""


def _begins(header: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Earlier turns may lack its end, an empty thought say: it is cut behind words, tags and white space.

    Without a special token only all of it counts.
    """
    special = next(pattern.finditer(header), None)
    cuts = [match.end() for match in WORD.finditer(header)] if special else []
    found = [header[:cut] for cut in reversed(cuts) if special and cut >= special.end()]
    return tuple(one for one in dict.fromkeys([header, header.rstrip(), *found]) if one)


def _ends(template: ChatTemplate, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """In the midst of a conversation, and at its end: the first special tokens, up to one that opens a turn."""
    text = template.render(PROBE)
    places = [text.find(mark) for mark in (ASKED, ANSWERED, ASKED_AGAIN, ANSWERED_AGAIN)]
    if -1 in places or sorted(places) != places:
        return ()
    before = pattern.findall(text[: places[0]])
    try:  # a template may put words of its own before ours, with an end; it has none before those of a system
        told = template.render([{"role": "system", "content": TOLD}, *PROBE])
        told = told[: max(0, told.find(TOLD))]
    except Failed:
        told = text[: places[0]]
    opening = {*before[-1:], *pattern.findall(told)}
    last = _run(text[places[3] + len(ANSWERED_AGAIN) :], pattern, opening)
    if last:  # there are ends: what stands first of all, behind a beginning of the text, is none
        opening = {*before[-1:], *pattern.findall(told)[:2]}
    midst = _run(text[places[1] + len(ANSWERED) : places[2]], pattern, opening)
    return tuple(one for one in dict.fromkeys((midst, last)) if one)


def _run(gap: str, pattern: re.Pattern[str], opening: set[str]) -> str:
    """The first special tokens of a text that stand side by side, up to one that opens a turn."""
    if (first := pattern.search(gap)) is None:
        return ""
    end = first.start()
    while (match := pattern.match(gap, end)) is not None and match[0] not in opening:
        end = match.end()
    return gap[first.start() : end]


def tools_of(template: ChatTemplate) -> Tools:
    """A template that refuses our conversation is taken for one that has all. Raises Failed where it does not end."""
    wrapped: list[dict[str, Any]] = [{"type": "function", "function": FUNCTION}]
    try:
        text = template.render(CALLING, wrapped)
    except Failed as failed:
        if failed.endless:
            raise
        return Tools(True, True, True)
    return Tools(TOOL in text, CALLED in text, RETURNED in text)
