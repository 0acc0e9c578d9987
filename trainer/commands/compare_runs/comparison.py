"""All that a comparison finds, once, for the table, for JSON and for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.commands.compare_runs.parting import Parting, part
from trainer.commands.compare_runs.runs import Compared

MISSING = "-"


@dataclass(frozen=True)
class Comparison:
    """settings and machine: by key that differs, a value for each run; a run that has no such key has ``MISSING``."""

    runs: tuple[Compared, ...]
    settings: dict[str, list[Any]]
    machine: dict[str, list[Any]]
    partings: tuple[Parting, ...]
    """Of every run but the first, from the first."""


def compare(runs: Sequence[Compared]) -> Comparison:
    """runs: one at least; the first is what the others are held against."""
    return Comparison(
        tuple(runs),
        _differences([run.settings for run in runs if run.settings], runs, lambda run: run.settings),
        _differences([run.machine for run in runs if run.machine], runs, lambda run: run.machine),
        tuple(part(runs[0], run) for run in runs[1:]),
    )


def _differences(
    known: Sequence[dict[str, Any]], runs: Sequence[Compared], of: Callable[[Compared], dict[str, Any]]
) -> dict[str, list[Any]]:
    """Runs that have recorded nothing of the kind make no key differ."""
    keys = sorted({key for values in known for key in values})
    differing = [key for key in keys if any(v.get(key, MISSING) != known[0].get(key, MISSING) for v in known)]
    return {key: [of(run).get(key, MISSING) for run in runs] for key in differing}


def as_json(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready; a number that is not finite is null."""
    return {
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "steps": len(run.curve.loss),
                "last": _at(run.last),
                "best": _at(run.best),
                "bits_per_byte": _at(run.held_out),
                "tokens_per_second": run.tokens_per_second,
                "exit": run.end,
            }
            for run in comparison.runs
        ],
        "settings": comparison.settings,
        "machine": comparison.machine,
        "partings": [
            {**asdict(parting), "relative": _finite(parting.relative), "losses": _pair(parting.losses)}
            for parting in comparison.partings
        ],
    }


def _at(place: tuple[int, float] | None) -> dict[str, float | None] | None:
    return {"step": place[0], "value": _finite(place[1])} if place else None


def _pair(losses: tuple[float, float] | None) -> list[float | None] | None:
    return [_finite(loss) for loss in losses] if losses else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
