"""A page of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASS, FAIL, SKIP = "pass", "FAIL", "skip"


@dataclass(frozen=True)
class Line:
    """One check and its verdict."""

    name: str
    verdict: str
    found: str
    wanted: str


def judged(name: str, good: bool, found: str, wanted: str) -> Line:
    """A line that passes or fails."""
    return Line(name, PASS if good else FAIL, found, wanted)


def failed(lines: Sequence[Line]) -> bool:
    """Whether the page fails: at least one line does. Skipped lines do not count."""
    return any(line.verdict == FAIL for line in lines)


def render(title: str, lines: Sequence[Line]) -> str:
    """Markdown, aligned for reading in a terminal."""
    rows = [("", "what", "found", "wanted"), *((x.verdict, x.name, x.found, x.wanted) for x in lines)]
    cells = [tuple(cell.replace("|", "/").replace("\n", " ") for cell in row) for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(4)]
    body = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    body.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    count = {verdict: sum(line.verdict == verdict for line in lines) for verdict in (PASS, FAIL, SKIP)}
    total = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number)
    return "\n".join([f"# {title}", "", *body, "", f"{'FAIL' if failed(lines) else 'pass'}: {total}", ""])
