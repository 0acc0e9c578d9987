"""Extrapolates a step's totals from two steps of few microbatches.

From some number of microbatches on, each further one adds the same: totals are affine in that number, and two counts
determine them exactly. Peak memory is that of the larger count: it stops growing once a full pipeline runs backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.rehearsal.collectives import Key, Traffic
from trainer.rehearsal.flops import Flops


@dataclass(frozen=True)
class Totals:
    """One rank's step. peaks: bytes above what is alive between steps, by phase."""

    flops: Flops
    traffic: Mapping[Key, Traffic]
    peaks: Mapping[str, int]


def counts(microbatches: int, stages: int, virtual: int = 1) -> tuple[int, ...]:
    """Numbers of microbatches to simulate: the step's own if it is small, else two to extrapolate from.

    stages: pipeline-parallel size. virtual: stages of each rank; above 1 the schedule runs in equal rounds of
    ``stages`` microbatches or more, and its warm-up lasts up to two of them (Narayanan et al. 2021, arXiv:2104.04473,
    section 2.2).
    """
    if virtual > 1:
        per_round = microbatches // max(1, microbatches // stages)  # as torch's schedules divide them
        few = (2 * per_round, 3 * per_round)
    else:
        few = (max(2, stages), max(2, stages) + 1)
    return (microbatches,) if microbatches <= few[1] else few


def scale(few: tuple[int, Totals], more: tuple[int, Totals], microbatches: int) -> Totals:
    """The exact totals of a step of ``microbatches``, from those of two smaller steps."""

    def line(low: int, high: int) -> int:
        slope, rest = divmod(high - low, more[0] - few[0])
        assert not rest, f"{low} and {high} at {few[0]} and {more[0]} microbatches: not affine in whole numbers"
        return low + slope * (microbatches - few[0])

    a, b = few[1], more[1]
    assert a.traffic.keys() == b.traffic.keys(), "every kind of collective happens from the first microbatches on"
    return Totals(
        flops=Flops(
            matmul=line(a.flops.matmul, b.flops.matmul),
            attention=line(a.flops.attention, b.flops.attention),
            recomputed=line(a.flops.recomputed, b.flops.recomputed),
        ),
        traffic={
            key: Traffic(line(a.traffic[key].count, high.count), line(a.traffic[key].bytes, high.bytes))
            for key, high in b.traffic.items()
        },
        peaks=b.peaks,
    )
