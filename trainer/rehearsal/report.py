"""A rehearsed rank's step as a printable table."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.parallel.mesh import AXES
from trainer.rehearsal.rehearse import PHASES, RankReport


def describe(report: RankReport) -> Iterator[str]:
    """Lines about one rank: memory, collectives, FLOPs, and whether it fits in a NeuronCore of trn1."""
    mesh, static, totals = report.mesh, report.static, report.totals
    place = ", ".join(f"{axis} {mesh.coordinate(axis)} of {mesh.size(axis)}" for axis in AXES if mesh.size(axis) > 1)
    yield ""
    yield f"rank {mesh.rank} of {mesh.world}{f' ({place})' if place else ''}: one step, {_microbatches(report)}"
    yield f"  parameters         {report.parameters:>22,}"
    yield "  memory                              bytes"
    yield f"    parameters       {static.parameters:>22,}"
    yield f"    gradients        {static.gradients:>22,}"
    yield f"    optimizer state  {static.optimizer:>22,}"
    yield f"    other            {static.other:>22,}"
    yield f"    peak activations {report.activations:>22,}"
    if report.activations != totals.peaks[PHASES[0]]:
        yield f"    the same, with what ZeRO gathers and accumulates {totals.peaks[PHASES[0]]:>11,}"
    yield f"    peak of update   {totals.peaks[PHASES[1]]:>22,}"
    yield f"  {'collectives a step':<22}{'axis':<10}{'kind':<16}{'count':>10}{'bytes':>24}"
    for key, traffic in sorted(totals.traffic.items(), key=lambda entry: (PHASES.index(entry[0].phase), entry[0])):
        yield f"    {key.phase:<20}{key.axis:<10}{key.kind:<16}{traffic.count:>10,}{traffic.bytes:>24,}"
    if not totals.traffic:
        yield "    none"
    yield "  FLOPs a step"
    yield f"    model            {totals.flops.model:>22.6e}   attention over the full square"
    yield f"    model, causal    {totals.flops.model_causal:>22.6e}   half of it, as MFU counts it"
    yield f"    recomputed       {totals.flops.recomputed:>22.6e}   attention's scores in its backward pass included"
    yield f"  trn1: {report.verdict}"
    if report.verdict.scores is not None:
        yield f"        {report.verdict.scores}"
    yield f"  took {report.seconds:.1f} s on one core"


def _microbatches(report: RankReport) -> str:
    if len(report.simulated) == 1:
        return f"{report.microbatches:,} microbatches"
    few, more = report.simulated
    return f"{report.microbatches:,} microbatches, scaled from {few} and {more}"
