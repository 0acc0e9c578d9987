"""Rows of a source as conversations: a document is the JSON of its turns, so equal conversations are equal texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.data.chat.turns import (
    EMPTY_ASSISTANT,
    NO_CONTENT,
    NO_LIST,
    NO_ROLE,
    RESERVED,
    TOOL_CALLS,
    TOOLS,
    UNKNOWN_ROLE,
    checked_tools,
    checked_turns,
)
from trainer.data.readers.found import Bad, Document, NoColumn, Place, Reason, checked

AUTO = "auto"
NEEDED = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}
"""Columns by which a shape is told."""
OPTIONAL = {
    "messages": ("tools",),
    "conversations": ("system", "tools"),
    "prompt_completion": ("tools",),
    "instruction": ("input", "system", "history"),
}
OTHER_SHAPE = Reason("without the columns of its shape", "set chat to the shape of its rows", "chat")
TWO_SHAPES = Reason("of two shapes at once", "say which one counts: chat=messages and the like", "chat")
NO_PROMPT = Reason("a prompt or a completion that is no text", "write both as texts, or both as lists of turns", "chat")
NO_COMPLETION = Reason("a completion that is empty", "leave the row out: nothing of it is trained on", "chat")
NO_PAIRS = Reason("a history that is no list of pairs of texts", 'write [["asked", "answered"], ...]', "chat")
SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
    "function_call": "function_call",
}
"""Roles by the names that conversations in ShareGPT's shape have for them."""
TOO_DEEP = Reason("nested too deeply", "leave the field out: lists in lists have an end", "chat")
NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")


class Conversations(NamedTuple):
    """What is read of a row. shape: of data.sources[].chat. column: of the turns, where it has another name."""

    shape: str
    column: str | None = None

    def columns(self, available: Sequence[str]) -> list[str]:
        """Those of a table that are read. Raises NoColumn where one that the shape needs is not there."""
        needed = self.needed()
        wanted = [name for shape, names in needed.items() for name in (*names, *OPTIONAL[shape])]
        if not any(set(names) <= set(available) for names in needed.values()):
            raise NoShape(self, list(available))
        return [name for name in dict.fromkeys(wanted) if name in available]

    def needed(self) -> Mapping[str, tuple[str, ...]]:
        """Columns of each shape that would do."""
        return {shape: self._needed(shape) for shape in (NEEDED if self.shape == AUTO else (self.shape,))}

    def document(self, row: Mapping[str, Any], place: Place) -> Document | Bad:
        """The conversation of a row, or what is wrong with it."""
        shape = self.shape_of(row)
        if isinstance(shape, Reason):
            return Bad(shape, place)
        if shape != (self.shape if self.shape != AUTO else shape) or not self._has(row, shape):
            return Bad(OTHER_SHAPE, place)
        if self.column is not None and shape in ("messages", "conversations"):
            row = {**row, shape: row[self.column]}
        try:
            found = MAKERS[shape](row)
            if isinstance(found, Reason):
                return Bad(found, place)
            text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), default=str)
        except RecursionError:
            return Bad(TOO_DEEP, place)
        return Bad(RESERVED, place) if NONCHARACTERS.search(text) else checked(text, place)

    def shape_of(self, row: Mapping[str, Any]) -> str | Reason:
        """The one that was said, or the only one that a row's columns allow."""
        if self.shape != AUTO:
            return self.shape
        found = [shape for shape in NEEDED if self._has(row, shape)]
        return found[0] if len(found) == 1 else TWO_SHAPES if found else OTHER_SHAPE

    def _needed(self, shape: str) -> tuple[str, ...]:
        return (self.column,) if self.column is not None and len(NEEDED[shape]) == 1 else NEEDED[shape]

    def _has(self, row: Mapping[str, Any], shape: str) -> bool:
        return all(row.get(name) is not None for name in self._needed(shape))


class NoShape(NoColumn):
    """A table, or all rows of a file, without the columns of any shape."""

    def __init__(self, read: Conversations, columns: list[str]) -> None:
        super().__init__(columns)
        wanted = "; or ".join(" and ".join(names) for names in read.needed().values())
        self.rule = f"rows with {wanted}; there are: {', '.join(columns)}"
        self.remedy, self.field = "set chat to the shape of its rows, or text_field to the column of the turns", "chat"


def _parsed(value: Any) -> Any:
    """A table's cell may hold JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _conversation(turns: object, row: Mapping[str, Any], trained_from: int = 0) -> dict[str, Any] | Reason:
    """trained_from: the first turn that may be trained on."""
    given = row.get("tools")
    tools = checked_tools(_parsed(given) if given != "" else None)
    found = checked_turns(turns)
    if isinstance(found, Reason) or isinstance(tools, Reason):
        return found if isinstance(found, Reason) else TOOLS
    more = {"tools": tools} if tools else {}
    return {"messages": found, **more, **({"from": trained_from} if trained_from else {})}


def _messages(row: Mapping[str, Any]) -> dict[str, Any] | Reason:
    return _conversation(_parsed(row["messages"]), row)


def _sharegpt(row: Mapping[str, Any]) -> dict[str, Any] | Reason:
    given = _parsed(row["conversations"])
    if not isinstance(given, list) or not all(isinstance(turn, dict) for turn in given):
        return NO_LIST
    turns = _system(row)
    for turn in given:
        if not isinstance(name := turn.get("from"), str):
            return NO_ROLE
        if (role := SPEAKERS.get(name)) is None:
            return UNKNOWN_ROLE
        if (value := turn.get("value")) is None:
            return NO_CONTENT
        if role == "function_call":
            calls = _parsed(value)
            calls = calls if isinstance(calls, list) else [calls]
            if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
                return TOOL_CALLS
            called = [{"type": "function", "function": call} for call in calls]
            turns.append({"role": "assistant", "content": "", "tool_calls": called})
        else:
            turns.append({"role": role, "content": value})
    return _conversation(turns, row)


def _prompt_completion(row: Mapping[str, Any]) -> dict[str, Any] | Reason:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if isinstance(given := _parsed(prompt), list) and isinstance(_parsed(completion), list):
            prompt, completion = given, _parsed(completion)  # turns in cells
        else:
            return {"prompt": prompt, "completion": completion} if completion else NO_COMPLETION
    if not isinstance(prompt, list) or not isinstance(completion, list):
        return NO_PROMPT
    if not any(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in completion):
        return NO_COMPLETION
    return _conversation([*prompt, *completion], row, len(prompt))


def _instruction(row: Mapping[str, Any]) -> dict[str, Any] | Reason:
    asked, more, answer = row["instruction"], row.get("input"), row["output"]
    history = _parsed(row.get("history") or [])
    if not isinstance(history, list) or not all(_is_pair(pair) for pair in history):
        return NO_PAIRS
    if isinstance(more, str) and more and isinstance(asked, str):
        asked = f"{asked}\n{more}"
    if answer == "":
        return EMPTY_ASSISTANT
    turns = _system(row)
    for before, after in [*history, (asked, answer)]:
        turns += [{"role": "user", "content": before}, {"role": "assistant", "content": after}]
    return _conversation(turns, row)


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _system(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    said = row.get("system")
    return [{"role": "system", "content": said}] if said else []


MAKERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | Reason]] = {
    "messages": _messages,
    "conversations": _sharegpt,
    "prompt_completion": _prompt_completion,
    "instruction": _instruction,
}
