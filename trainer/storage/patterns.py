"""Which names a pattern means: shell patterns, as Python's glob has them, on names that need not be files."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

MAGIC = "*?["


def is_pattern(path: str) -> bool:
    """Whether a path has a character that stands for others."""
    return any(character in path for character in MAGIC)


def literal_prefix(pattern: str) -> str:
    """What every name begins with that the pattern means."""
    place = min((pattern.index(character) for character in MAGIC if character in pattern), default=len(pattern))
    return pattern[:place]


def names(pattern: str, name: str) -> bool:
    """Whether a pattern names this file, or a directory above it.

    ``*``, ``?`` and ``[...]`` stay within a directory, ``**`` goes through any number of them. What begins with a dot
    is hidden: only a pattern that says the dot names it.
    """
    return _names(pattern.split("/"), name.split("/"))


def hidden(part: str) -> bool:
    """Whether a file or a directory of this name is nobody's corpus."""
    return part.startswith(".") or part == "__pycache__"


def _names(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern:
        return not any(map(hidden, parts))
    first, *rest = pattern
    if first == "**":
        return _names(rest, parts) or (bool(parts) and not parts[0].startswith(".") and _names(pattern, parts[1:]))
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(parts[0], first) and _names(rest, parts[1:])
