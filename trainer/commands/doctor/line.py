"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """What was found, what is wanted, and how it is mended where that is not the same."""

    what: str
    found: str
    wanted: str
    fine: bool
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{'ok  ' if self.fine else 'MEND'}  {self.what:<28} {self.found:<28} wanted: {self.wanted}"
        return text if self.fine else f"{text}\n        remedy: {self.remedy}"


def verdict(lines: Sequence[Line]) -> str:
    """The last line of the table."""
    wrong = [line.what for line in lines if not line.fine]
    return f"{len(wrong)} of {len(lines)} to mend: {', '.join(wrong)}" if wrong else "all is fine"


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """The table for programs. mend: what is not fine, by name; empty where all is."""
    told = [{**asdict(line), "remedy": "" if line.fine else line.remedy} for line in lines]
    return {"lines": told, "mend": [line.what for line in lines if not line.fine]}
