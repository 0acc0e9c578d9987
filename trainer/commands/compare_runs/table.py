"""A comparison as text, and the words for its cells that the page shares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.commands.compare_runs.comparison import Comparison
from trainer.commands.compare_runs.runs import Compared
from trainer.printable import printable

HEAD = ("run", "steps", "last loss", "best loss", "bits per byte", "tokens/s", "exit")
WIDEST = 48
"""Characters of a cell in a terminal; the page and --json have all of them."""


def describe(comparison: Comparison) -> Iterator[str]:
    """Lines for a terminal."""
    runs = comparison.runs
    yield from _columns([HEAD, *(summary(run) for run in runs)])
    for parting in comparison.partings:
        yield f"{printable(parting.name)} against {printable(parting.reference)}: {parting}"
    if len(runs) == 1:
        yield "one run: there is nothing to compare it with"
        return
    for title, differing in (("settings", comparison.settings), ("machine", comparison.machine)):
        yield ""
        yield f"{title} that differ{'' if differing else ': none'}"
        if differing:
            yield from _columns(grid(runs, differing))
    without = [printable(run.name) for run in runs if not run.settings]
    if without:
        yield f"no config.yaml: {', '.join(without)}"


def summary(run: Compared) -> tuple[str, ...]:
    """A run's cells under HEAD."""
    speed = run.tokens_per_second
    return (
        run.name,
        str(len(run.curve.loss)) if run.curve.loss else "no step yet",
        _place(run.last),
        _place(run.best),
        _place(run.held_out),
        "-" if speed is None else f"{speed:,.0f}",
        run.end,
    )


def _place(place: tuple[int, float] | None) -> str:
    if place is None:
        return "-"
    step, value = place
    return f"{value:.4f} at {step}" if math.isfinite(value) else f"not finite at {step}"


def grid(runs: Sequence[Compared], differing: dict[str, list[Any]]) -> list[tuple[str, ...]]:
    """Keys down and runs across; the other way round where there are more runs than keys."""
    rows = [("key", *(run.name for run in runs))]
    rows += [(key, *map(cell, values)) for key, values in differing.items()]
    if len(runs) <= len(differing):
        return rows
    turned = list(zip(*rows, strict=True))
    return [("run", *turned[0][1:]), *turned[1:]]


def cell(value: Any) -> str:
    """A value as YAML's reader would know it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[_short(printable(text)) for text in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
