"""The layout contract (docs/numerics.md) as one comparison, for the matrix and for the faults that it has to notice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

FP32 = {"loss": 1e-5, "norm": 1e-4, "heldout": 1e-5, "logits": 1e-4, "gradients": 1e-4}
"""Largest relative difference at any step. logits: of one token, relative to the largest of them. gradients: of the
first step, one by one, relative to the largest of the same parameter."""
BF16 = {"first": 2e-3, "last": 5e-3, "heldout": 5e-3, "logits": 5e-2, "gradients": 1e-1}
"""Of the loss at the first and the last step. (Norms drift with the rounding, and are not promised.)"""


@dataclass(frozen=True)
class Differences:
    """Worst relative differences from one process, and what has to be exactly right."""

    precision: str
    loss: float
    norm: float
    first: float
    last: float
    heldout: float
    logits: float
    gradients: float
    wrong: tuple[str, ...]

    def assert_within(self) -> None:
        """The contract."""
        allowed = FP32 if self.precision == "fp32" else BF16
        excess = [
            f"{key} {getattr(self, key):.1e} > {limit}"
            for key, limit in allowed.items()
            if not getattr(self, key) <= limit  # not a number is no agreement either
        ]
        assert not excess + list(self.wrong), "; ".join([*self.wrong, *excess])


def assert_sound_reference(one: dict[str, Any]) -> None:
    """What the contract asks of the run that everything is compared with."""
    steps = one["steps"]
    assert [step["step"] for step in steps] == list(range(1, 21))
    assert steps[-1]["loss"] < 0.95 * steps[0]["loss"], "the contract asks for a falling loss"
    targets = [step["target_tokens"] for step in steps]
    assert len(set(targets)) > 5, "uneven documents and padding make the number of targets vary"
    assert max(targets) < 512
    assert any(step["grad_norm"] > 1.0 for step in steps), "clipping has to bite"


def compare(one: dict[str, Any], ranks: list[dict[str, Any]], precision: str) -> Differences:
    """One process's findings with those of every rank, as far as both go."""
    many = ranks[0]
    pairs = list(zip(one["steps"], many["steps"], strict=False))
    probes = [(a, b) for a in one["probes"] for b in many["probes"] if a["step"] == b["step"]]
    assert pairs
    assert probes
    losses = [_relative(a["loss"], b["loss"]) for a, b in pairs]
    return Differences(
        precision,
        loss=max(losses),
        norm=max(_relative(a["grad_norm"], b["grad_norm"]) for a, b in pairs),
        first=losses[0],
        last=losses[-1],
        heldout=max(max(_relative(a["nats"], b["nats"]), _farthest(_folded(a, b), _folded(b, a))) for a, b in probes),
        logits=max(_farthest(a["logits"], b["logits"]) for a, b in probes),
        gradients=max(rank["gradients"][0] for rank in ranks),
        wrong=tuple(_wrong(one, ranks, pairs, probes)),
    )


def _relative(expected: float, actual: float) -> float:
    return abs(expected - actual) / abs(expected)


def _farthest(expected: list[float], actual: list[float] | None) -> float:
    if actual is None:  # neuronx-distributed's pipeline gives losses only
        return 0.0
    if len(expected) != len(actual):
        return float("inf")
    return max(abs(a - b) for a, b in zip(expected, actual, strict=True)) / max(map(abs, expected))


def _folded(probe: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """Losses of microbatches, added up to as many windows as both can tell apart."""
    size = math.lcm(probe["rows"], other["rows"]) // probe["rows"]
    return [sum(probe["each"][start : start + size]) for start in range(0, len(probe["each"]), size)]


def _wrong(
    one: dict[str, Any], ranks: list[dict[str, Any]], pairs: list[tuple[Any, Any]], probes: list[tuple[Any, Any]]
) -> list[str]:
    """What has to be exactly right and is not."""
    many = ranks[0]
    checks = {
        "initial parameters differ": many["different"] == 0,
        "initial parameters are not each written once": many["written"] == many["parameters"],
        "ranks report different curves": all(rank["steps"] == many["steps"] for rank in ranks),
        "ranks evaluate to different values": all(rank["probes"] == many["probes"] for rank in ranks),
        "numbers of targets differ": all(a["target_tokens"] == b["target_tokens"] for a, b in pairs),
        "numbers of held-out targets differ": all(a["targets"] == b["targets"] for a, b in probes),
        "a step was not finite": all(step["finite"] for step in many["steps"]),
    }
    return [text for text, right in checks.items() if not right]


def table(rows: dict[tuple[str, str], Differences]) -> str:
    """Worst relative differences, for docs/measurements.md."""
    head = "| layout | precision | loss | gradient norm | loss at step 1 | at step 20 | held-out | logits | gradients |"
    lines = [head, "|" + "---|" * 9]
    for (name, precision), d in rows.items():
        numbers = " | ".join(f"{x:.1e}" for x in (d.loss, d.norm, d.first, d.last, d.heldout, d.logits, d.gradients))
        lines.append(f"| {name} | {precision} | {numbers} |")
    return "\n".join(lines)
