"""Which version an alias names: its log, folded. An entry is whole or not there, so a reader sees the old or the new.

A promotion is appended right behind the entry that its gates have seen: where another has been faster, it is refused,
and the gates look again. An occurrence moves an alias once: a second entry of the same one counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        """What a rollback would bring back: what it has named last, was not withdrawn, and is another."""
        return next((one for one in reversed(self.stack) if one not in {*self.withdrawn, self.version}), None)


def after(alias: Alias, entry: Mapping[str, Any]) -> Alias:
    """The alias once one more entry is there. Raises KeyError, ValueError for what is none."""
    number, moved_by = alias.number + 1, alias.moved_by
    stack, withdrawn = alias.stack, alias.withdrawn
    occurrence = entry.get("occurrence")
    if not occurrence or occurrence not in moved_by:
        if entry["kind"] == ROLL_BACK:
            withdrawn |= {stack[-1]}
            while stack and stack[-1] in withdrawn:  # a version may have been promoted more than once
                stack = stack[:-1]
        elif entry["kind"] == PROMOTE:
            stack, withdrawn = (*stack, entry["version"]), withdrawn - {entry["version"]}
        else:
            raise ValueError(f"kind {entry['kind']}")
        moved_by = moved_by | {occurrence} if occurrence else moved_by
    return Alias(stack[-1] if stack else None, number, stack, withdrawn, moved_by)
