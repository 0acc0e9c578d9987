"""JSON that nobody vouches for: every oddity is an error with a name, and nothing is taken for something else."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

LARGEST = 1 << 62
"""No count, offset or size reaches it, so that sums of two fit 64 bits."""


class Unsound(ValueError):
    """A file of a checkpoint is not what it should be. The message is for people, and begins with what is wrong."""


def parse(data: bytes) -> Any:
    """UTF-8 JSON without duplicate keys, NaN, infinities or nesting beyond measure. Raises Unsound."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise Unsound("its JSON is nested too deeply") from None
    except Unsound:
        raise
    except ValueError as error:
        raise Unsound(f"no JSON ({error})") from None


def read(path: Path, limit: int) -> Any:
    """Parse a regular file of ``limit`` bytes at most. Raises Unsound, or OSError."""
    return parse(read_bytes(path, limit))


def read_bytes(path: Path, limit: int) -> bytes:
    """Of a regular file of ``limit`` bytes at most. Raises Unsound, or OSError."""
    size = regular(path)
    if size > limit:
        raise Unsound(f"{size:,} bytes, more than {limit:,}")
    return path.read_bytes()


def regular(path: Path) -> int:
    """Size of a file in bytes. Raises Unsound for a device, a pipe (reading one would wait for ever) or a directory."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Unsound("no regular file")
    return found.st_size


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unsound(f"{twice[:100]!r} stands there twice")
    return made


def _refuse(text: str) -> None:
    raise Unsound(f"{text} is no JSON number")


def whole(value: Any, what: str, low: int = 0) -> int:
    """A whole number in [low, 2^62); neither a float nor true. Raises Unsound."""
    if type(value) is not int or not low <= value < LARGEST:
        raise Unsound(f"{what} is {shown(value)}, not a whole number from {low} on")
    return value


def wholes(value: Any, what: str, low: int = 0) -> list[int]:
    """A list of such numbers. Raises Unsound."""
    if type(value) is not list:
        raise Unsound(f"{what} is {shown(value)}, not a list")
    if set(map(type, value)) - {int} or (value and not low <= min(value) <= max(value) < LARGEST):
        for item in value:
            whole(item, what, low)
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """An object. Raises Unsound."""
    if type(value) is not dict:
        raise Unsound(f"{what} is {shown(value)}, not an object")
    return value


def shown(value: Any) -> str:
    """A value of any size as a few characters."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:60] + "..."
