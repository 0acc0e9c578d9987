"""Where two runs' losses part: equal to the last bit up to a step, and within the layout contract up to another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainer.commands.compare_runs.runs import Compared

TOLERANCE_FP32, TOLERANCE_BF16 = 1e-5, 5e-3
"""Largest relative difference of the loss that docs/numerics.md allows between two layouts of one run."""


@dataclass(frozen=True)
class Parting:
    """How far a run goes with the first one, over the steps that both have recorded."""

    reference: str
    name: str
    tolerance: float
    common: int
    """Steps that both have."""
    equal_until: int | None
    """Up to this step every common loss is the same number; None where the first one is not."""
    parts_at: int | None
    """The first step whose losses differ by more than the tolerance; None where there is none."""
    losses: tuple[float, float] | None
    """Of the reference and of the run, at ``parts_at``."""
    relative: float
    """Difference at ``parts_at`` over the reference's loss; else the largest one."""
    uneven: bool
    """Up to the shorter run's end, one has steps that the other has not."""

    def __str__(self) -> str:
        if not self.common:
            return "no step in common"
        equal = "bitwise equal up to step" if self.equal_until is not None else "different from the first step on"
        text = f"{equal} {self.equal_until}" if self.equal_until is not None else equal
        if self.losses is not None:
            one, other = (f"{loss:.6f}" if math.isfinite(loss) else "not finite" for loss in self.losses)
            text += f"; parts at step {self.parts_at}: {one} and {other} ({self.relative:.1e} > {self.tolerance:.0e})"
        elif self.relative:
            text += f"; within {self.tolerance:.0e} to the end (largest {self.relative:.1e})"
        return text + (f"; only the {self.common} steps that both recorded" if self.uneven else "")


def part(reference: Compared, run: Compared) -> Parting:
    """Compare the training losses as recorded. A loss that was not finite equals only another such."""
    one, other = reference.curve.loss, run.curve.loss
    common = sorted(one.keys() & other.keys())
    tolerance = TOLERANCE_FP32 if {_precision(reference), _precision(run)} <= {"fp32", None} else TOLERANCE_BF16
    relative = {step: _relative(one[step], other[step]) for step in common}
    first = next((step for step in common if relative[step]), None)
    until = (common[-1] if common else None) if first is None else max((s for s in common if s < first), default=None)
    parts_at = next((step for step in common if relative[step] > tolerance), None)
    end = min(max(one, default=0), max(other, default=0))
    return Parting(
        reference.name,
        run.name,
        tolerance,
        len(common),
        until,
        parts_at,
        None if parts_at is None else (one[parts_at], other[parts_at]),
        max(relative.values(), default=0.0) if parts_at is None else relative[parts_at],
        {step for step in one if step <= end} != {step for step in other if step <= end},
    )


def _precision(run: Compared) -> Any:
    return run.settings.get("precision.mode")


def _relative(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    difference = abs(one - other) / abs(one) if one else math.inf
    return math.inf if math.isnan(difference) else difference
