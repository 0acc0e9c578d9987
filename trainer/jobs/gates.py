"""Whether a candidate may become the champion: each gate's verdict, in numbers and in a sentence. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.config.groups.job import JobGateConfig

ABSOLUTE, CHAMPION, REGRESSION, SIZE, LATENCY = KINDS = ("absolute", "champion", "regression", "size", "latency")
ON_SETS = (ABSOLUTE, CHAMPION, REGRESSION)
HIGHER_IS_BETTER = {"loss": False, "accuracy": True}
OF_KIND = {"text": "loss", "tasks": "accuracy"}
"""The metric of a kind of set."""
OF_MODEL = (SIZE_GB, MS_PER_TOKEN) = ("size_gb", "ms_per_token")
"""What stands among a model's scores beside the sets."""

Scores = Mapping[str, Any]
"""Of one model: set -> {metric: value, "fingerprint": ...}; and size_gb, ms_per_token."""


@dataclass(frozen=True)
class Verdict:
    """Of one gate. value: the candidate's. bound: what it is held against. fingerprint: of the set."""

    gate: str
    kind: str
    passed: bool
    value: float | None
    bound: float | None
    why: str
    fingerprint: str = ""

    def record(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)


def judge(gates: Sequence[JobGateConfig], candidate: Scores, champion: Scores | None) -> list[Verdict]:
    """A verdict for each gate, in their order. champion: None where there is none yet."""
    return [_judge(gate, candidate, champion) for gate in gates]


def _judge(gate: JobGateConfig, candidate: Scores, champion: Scores | None) -> Verdict:
    if gate.kind in ON_SETS:
        return _on_set(gate, candidate, champion)
    name, unit = (SIZE_GB, "GB") if gate.kind == SIZE else (MS_PER_TOKEN, "ms a token")
    value = candidate.get(name)
    return _absolute(gate, value, f"{_shown(value)} {unit}", higher=False)


def _on_set(gate: JobGateConfig, candidate: Scores, champion: Scores | None) -> Verdict:
    mine = candidate.get(gate.set, {})
    value, fingerprint = mine.get(gate.metric), mine.get("fingerprint", "")
    higher = HIGHER_IS_BETTER[gate.metric]
    what = f"{gate.metric} on {gate.set} {_shown(value)}"
    if gate.kind == ABSOLUTE:
        return _absolute(gate, value, what, higher, fingerprint)
    if value is None or not math.isfinite(value):
        return Verdict(gate.name, gate.kind, False, value, None, f"{what} is no number", fingerprint)
    if champion is None:
        return Verdict(gate.name, gate.kind, True, value, None, f"{what}, and there is no champion yet", fingerprint)
    theirs = champion.get(gate.set, {})
    if theirs.get("fingerprint", "") != fingerprint:
        why = f"the champion was scored on another content of {gate.set}: the two figures do not compare"
        return Verdict(gate.name, gate.kind, False, value, theirs.get(gate.metric), why, fingerprint)
    return _against(gate, value, theirs.get(gate.metric), what, higher, fingerprint)


def _against(
    gate: JobGateConfig, value: float, bound: float | None, what: str, higher: bool, fingerprint: str
) -> Verdict:
    """The champion's own figure is worth nothing where it is no number."""
    if bound is None or not math.isfinite(bound):
        return Verdict(gate.name, gate.kind, True, value, bound, f"{what}, the champion's is no number", fingerprint)
    better = value - bound if higher else bound - value
    if gate.kind == REGRESSION:
        passed, wanted = better >= -gate.margin, f"at most {gate.margin:g} worse"
    else:
        passed, wanted = better > gate.margin, f"more than {gate.margin:g} better" if gate.margin else "better"
    told = "equal to it" if better == 0 else f"{abs(better):.6g} {'better' if better > 0 else 'worse'}"
    why = f"{what}, the champion's {_shown(bound)}: {told}, wanted {wanted}"
    if better == 0 and not passed:
        why += "; a tie keeps the champion"
    return Verdict(gate.name, gate.kind, passed, value, bound, why, fingerprint)


def _absolute(gate: JobGateConfig, value: float | None, what: str, higher: bool, fingerprint: str = "") -> Verdict:
    if value is None or not math.isfinite(value) or gate.limit is None:
        return Verdict(gate.name, gate.kind, False, value, gate.limit, f"{what} is no number", fingerprint)
    passed = value >= gate.limit if higher else value <= gate.limit
    wanted = f"wanted {'at least' if higher else 'at most'} {gate.limit:g}"
    return Verdict(gate.name, gate.kind, passed, value, gate.limit, f"{what}, {wanted}", fingerprint)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
