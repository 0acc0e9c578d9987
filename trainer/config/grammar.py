"""Hydra's grammar of overrides: values spelt out in it, and what a text that it does not take should have been."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

GENERAL = "quote what holds [ ] { } , = ~ or letters beyond ASCII: 'key=\"value\"'"
_BARE = re.compile(r"[A-Za-z_/*.][A-Za-z0-9_/*.+%@?-]*")
"""Texts that the grammar takes for themselves, without quotes; some more would do."""
LONGEST = 500
"""Characters of an override that is still worth repeating."""
_WORDS = {"null", "true", "false", "nan", "inf"}


def parsed(text: str) -> Override | None:
    """An override, or None where the grammar does not take it."""
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):  # ValueError: a number of thousands of digits
        return None


def spelt(value: Any) -> str:
    """A plain value as an override writes it: the inverse of parsing."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {spelt(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelt(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and (not _BARE.fullmatch(value) or value.lower() in _WORDS):
        return _quoted(value)
    return str(value)


def remedy(text: str, takes: Callable[[Override], bool]) -> str:
    """What to type instead of a text that the grammar does not take: tried, where there is a suggestion.

    takes: whether an override that can be read gives its key what the key can hold.
    """
    key, equals, value = text.partition("=")
    homes = re.sub(r"(?<![\w\"'~/])~[^\s,\]}\"']*", lambda path: _quoted(path[0]), value)
    for candidate in (homes, _quoted(value)) if equals and len(text) < LONGEST else ():
        again = parsed(f"{key}={candidate}")
        if candidate != value and again is not None and not again.is_sweep_override() and takes(again):
            return f"write {shlex.quote(f'{key}={candidate}')}; {GENERAL}"
    return GENERAL


def _quoted(text: str) -> str:
    """A text in double quotes: a backslash is doubled only where it stands before a quote."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ("\\" + found[2] if found[2] else ""), text)
    return f'"{escaped}"'
