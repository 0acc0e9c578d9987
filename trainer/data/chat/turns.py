"""What a conversation has to be, before any template sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.readers.found import Reason

Turn = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
FIRST = ("system", "developer")
ANSWERS = ("tool", "function", "ipython")
"""Roles of what a called function has returned."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names under which a turn has its reasoning; the first is the standard one."""

NO_TURNS = Reason("a conversation without turns", "leave the row out", "chat")
NO_LIST = Reason("turns that are no list of objects", "write a list: [{...}, {...}]", "chat")
NO_ROLE = Reason("a turn without a role", "say who speaks: role, or from of the shape conversations", "chat")
UNKNOWN_ROLE = Reason("a turn of an unknown role", f"use one of {', '.join(ROLES)}", "chat")
NO_CONTENT = Reason(
    "a turn without content", "write what is said: content, or value of the shape conversations", "chat"
)
NOT_TEXT = Reason("a turn whose content is no text", "write one text a turn: parts and images are not read", "chat")
NO_ASSISTANT = Reason("a conversation without an assistant turn", "leave it out: nothing of it is trained on", "chat")
EMPTY_ASSISTANT = Reason("an assistant turn that is empty", "write what it says, or leave the row out", "chat")
ORDER = Reason("roles out of order", "system comes first, and tool behind the assistant that calls it", "chat")
TOOL_CALLS = Reason("tool calls that are no list of named functions", 'write [{"function": {"name": "..."}}]', "chat")
TOOLS = Reason("tools that are no list of objects", "write the list of their descriptions, or its JSON", "chat")
RESERVED = Reason("a noncharacter in text (U+FDD0 - U+FDEF)", "remove it", "chat")


def checked_turns(value: object) -> list[Turn] | Reason:
    """Turns of role and content as templates take them, without fields that are null; or what is wrong with them."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return NO_LIST
    if not value:
        return NO_TURNS
    turns: list[Turn] = []
    for number, turn in enumerate(value):
        if isinstance(found := _turn(turn, turns[-1]["role"] if number else None), Reason):
            return found
        turns.append(found)
    return turns if any(turn["role"] == "assistant" for turn in turns) else NO_ASSISTANT


def _turn(given: Mapping[str, Any], before: str | None) -> Turn | Reason:
    """before: the role of the turn before; None of the first."""
    turn = {str(name): value for name, value in without_nulls(given).items()}
    role, content = turn.get("role"), turn.get("content")
    if role is None:
        return NO_ROLE
    if not isinstance(role, str) or role not in ROLES:
        return UNKNOWN_ROLE
    if (role in FIRST and before is not None) or (role in ANSWERS and before not in ("assistant", *ANSWERS)):
        return ORDER
    calls = turn.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(name_of(call), str) for call in calls):
        return TOOL_CALLS
    if not calls:
        turn.pop("tool_calls", None)
    if thought := next((turn[name] for name in THOUGHTS if isinstance(turn.get(name), str)), None):
        turn |= {"thinking": turn.get("thinking", thought), "reasoning_content": thought}
    if content is None and not (calls or thought):
        return NO_CONTENT
    if content is not None and not isinstance(content, str):
        return NOT_TEXT
    if role == "assistant" and not (calls or thought or (content or "").strip()):
        return EMPTY_ASSISTANT
    turn["content"] = content or ""
    return turn


def name_of(call: object) -> Any:
    """Of the function that is called."""
    called = call.get("function", call) if isinstance(call, dict) else None
    return called.get("name") if isinstance(called, dict) else None


def checked_tools(value: object) -> list[dict[str, Any]] | Reason:
    """Descriptions of functions; none of nothing."""
    if value is None or value == []:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return TOOLS
    return [without_nulls(tool) for tool in value]


def without_nulls(value: Any) -> Any:
    """Tables have every field of every row: those that a row does not have are null there."""
    if isinstance(value, Mapping):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nulls(one) for one in value]
    return value
