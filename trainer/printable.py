"""Text of others on a terminal and on a page: what steers either is shown, and does nothing."""

from __future__ import annotations


def printable(text: str) -> str:
    """In one line, without characters that steer a terminal, or that no encoding has."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
