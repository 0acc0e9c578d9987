"""Which version an alias names: its log, folded. An entry is whole or not there, so a reader sees the old or the new.

A promotion is appended right behind the entry that its gates have seen: where another has been faster, it is refused,
and the gates look again. An occurrence moves an alias once: a second entry of the same one counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PROMOTE, ROLL_BACK = "promote", "roll back"


@dataclass(frozen=True)
class Alias:
    """version: None where it was never moved. number: of its newest entry. withdrawn: rolled back, each for good,
    unless it is promoted once more by hand."""

    version: str | None = None
    number: int = 0
    stack: tuple[str, ...] = ()
    withdrawn: frozenset[str] = frozenset()
    moved_by: frozenset[str] = frozenset()

    @property
    def before(self) -> str | None:
        """What a rollback would bring back."""
        return self.stack[-2] if len(self.stack) > 1 else None


def fold(entries: Iterable[Mapping[str, Any]]) -> Alias:
    """The alias that a log's entries come to."""
    alias = Alias()
    for entry in entries:
        alias = after(alias, entry)
    return alias


def after(alias: Alias, entry: Mapping[str, Any]) -> Alias:
    """The alias once one more entry is there."""
    number, moved_by = alias.number + 1, alias.moved_by
    stack, withdrawn = alias.stack, alias.withdrawn
    occurrence = entry.get("occurrence")
    if not occurrence or occurrence not in moved_by:
        if entry["kind"] == ROLL_BACK:
            stack, withdrawn = stack[:-1], withdrawn | {stack[-1]}
        else:
            stack, withdrawn = (*stack, entry["version"]), withdrawn - {entry["version"]}
        moved_by = moved_by | {occurrence} if occurrence else moved_by
    return Alias(stack[-1] if stack else None, number, stack, withdrawn, moved_by)
