"""Compares the loss curve of a run with the golden curve, with another run's, and with a closed form."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.commands.smoke.jobs import ROOT, STEPS
from trainer.commands.smoke.page import Line, judged

GOLDEN = ROOT / "tests" / "golden" / "smoke_tiny.json"
"""Losses and gradient norms of the tiny model, one process, native backend on CPU: {precision: {loss: [], norm: []}}.
Written by python -m tests.golden.smoke_tiny."""

Step = dict[str, Any]
"""A step's record in metrics.jsonl."""
Curve = dict[str, list[float]]
"""loss and norm, of every step."""


@dataclass(frozen=True)
class Limits:
    """Largest relative differences from the golden curve."""

    first: float
    """Of the loss at step 1."""
    loss: float
    """Of the loss at any step, or in BF16 at the last."""
    norm: float | None
    """Of the gradient norm at any step; None where it is not promised."""


ON_CPU = {"fp32": Limits(1e-5, 1e-5, 1e-4), "bf16_mixed": Limits(2e-3, 5e-3, None)}
"""The layout contract (docs/numerics.md)."""
ON_DEVICE = {"fp32": Limits(1e-4, 1e-4, 1e-3), "bf16_mixed": Limits(2e-3, 5e-3, None)}
"""Estimated, never measured: the contract, in FP32 times ten for the device's own exponentials and sums."""


def read_steps(directory: Path) -> list[Step]:
    """The step records of a run; empty without a metrics file."""
    try:
        text = (directory / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    return [record for record in map(json.loads, text.splitlines()) if record["kind"] == "step"]


def whole(steps: Sequence[Step]) -> str | None:
    """Why a list of records is not a complete curve of finite losses; None if it is one."""
    if [step["step"] for step in steps] != list(range(1, STEPS + 1)):
        return f"{len(steps)} of {STEPS} steps recorded"
    bad = [step["step"] for step in steps if step["loss"] is None or step["grad_norm"] is None or not step["finite"]]
    return f"not finite at step {bad[0]}" if bad else None


def model_and_precision(directory: Path) -> tuple[dict[str, Any], str]:
    """Model and precision of a run's config.yaml, after the fallback on a CPU without BF16.

    Raises OSError if the run has none.
    """
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    return config["model"], config["precision"]["mode"]


def against_golden(name: str, directory: Path, curves: dict[str, Curve], limits: dict[str, Limits]) -> Line:
    """Whether a run matches the golden curve of its precision."""
    steps = read_steps(directory)
    if (fault := whole(steps)) is not None:
        return judged(name, False, fault, "CPU's golden curve")
    _, precision = model_and_precision(directory)
    golden, limit = curves[precision], limits[precision]
    losses = [_relative(want, step["loss"]) for want, step in zip(golden["loss"], steps, strict=True)]
    norms = [_relative(want, step["grad_norm"]) for want, step in zip(golden["norm"], steps, strict=True)]
    if limit.norm is not None:
        good = max(losses) <= limit.loss and max(norms) <= limit.norm
        found = f"{precision}: loss {max(losses):.1e}, norm {max(norms):.1e} away at worst"
        wanted = f"CPU's golden curve, loss to {limit.loss:g} and norm to {limit.norm:g} at every step"
    else:
        good = losses[0] <= limit.first and losses[-1] <= limit.loss
        found = f"{precision}: loss {losses[0]:.1e} away at step 1, {losses[-1]:.1e} at step {STEPS}"
        wanted = f"CPU's golden curve, loss to {limit.first:g} at step 1, {limit.loss:g} at step {STEPS}"
    return judged(name, good, found, wanted)


def begins_right(name: str, directory: Path) -> Line:
    """Whether a curve starts at the loss of an untrained model of the run's config.yaml, and falls.

    Logits of a normalised state with independent weights are normal with variance hidden * init_std**2, so the
    expected loss is ln(vocab) + half of that (the mean of a log-normal).
    """
    steps = read_steps(directory)
    wanted = f"{STEPS} finite losses; the first as of an untrained model, to 3 %; the last lower"
    if (fault := whole(steps)) is not None:
        return judged(name, False, fault, wanted)
    model, _ = model_and_precision(directory)
    expected = math.log(model["vocab"]) + model["hidden"] * model["init_std"] ** 2 / 2
    first, last = steps[0]["loss"], steps[-1]["loss"]
    good = _relative(expected, first) <= 0.03 and last < first
    return judged(name, good, f"{first:.3f} at step 1 (untrained {expected:.3f}), {last:.3f} at step {STEPS}", wanted)


def same_rest(name: str, straight: Sequence[Step], resumed: Sequence[Step]) -> Line:
    """Whether a run that was stopped and resumed has exactly the losses and norms of an uninterrupted one."""
    wanted = f"losses and gradient norms of {STEPS} steps equal, to the last bit"
    if (fault := whole(straight) or whole(resumed)) is not None:
        return judged(name, False, fault, wanted)
    keys = ("loss", "grad_norm", "tokens", "target_tokens")
    different = [a["step"] for a, b in zip(straight, resumed, strict=True) if any(a[key] != b[key] for key in keys)]
    return judged(name, not different, f"differ from step {different[0]}" if different else "equal", wanted)


def throughput(name: str, steps: Sequence[Step], dry: bool) -> Line:
    """Median tokens a second and MFU of the second half of the steps: the first half includes compilation.

    dry: the peak was measured on a CPU that may be shared, so an MFU above 100 % is allowed.
    """
    wanted = "above 0" if dry else "an MFU between 0 and 100 %; no figure was ever promised"
    if (fault := whole(steps)) is not None:
        return judged(name, False, fault, wanted)
    late = steps[STEPS // 2 :]
    speed, mfu = (statistics.median(step[key] for step in late) for key in ("tokens_per_second", "mfu"))
    seconds = statistics.median(step["step_seconds"] for step in late)
    found = f"{speed:,.0f} tokens/s, {seconds:.2f} s a step, MFU {mfu:.1%}"
    return judged(name, speed > 0 and 0 < mfu < (math.inf if dry else 1), found, wanted)


def _relative(expected: float, actual: float) -> float:
    return abs(expected - actual) / abs(expected)
