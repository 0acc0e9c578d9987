"""What scripts/plot.py draws: the curves that metrics.jsonl holds, one color for each run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ExitCode, Problem, RunError
from trainer.observe.curves import Curve, UnreadableRun, distinct, read
from trainer.run.directory import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
COLORS = ("#2563a8", "#d9631e", "#2e8b57", "#8e4ec6", "#b8860b", "#c2406b")
"""One for each run, then again from the first."""
INK, PALE = "#444444", "#e4e4e4"
SIZE, DPI = (9.0, 4.2), 100
"""Inches and pixels an inch: 900 x 420 pixels."""
INSTALL = "python -m pip install --constraint constraints.txt matplotlib"


class PlotError(RunError):
    """Runs that cannot be read, or a picture that cannot be written."""

    code = ExitCode.CONFIG
    title = "no picture was drawn"


def label_of(curve: Curve) -> str:
    """For a legend, which takes dollars for mathematics and leaves out what begins with an underscore."""
    return f"run {curve.name}".replace("$", r"\$")


def plot(runs: Sequence[Path], out: Path) -> None:
    """Draw the runs into ``out``. Raises PlotError with every problem at once."""
    curves: list[Curve] = []
    problems: list[Problem] = []
    for run, name in zip(runs, distinct(list(runs)), strict=True):
        try:
            curves.append(read_trained(run, name))
        except UnreadableRun as error:
            problems += error.problems
    if out.suffix not in FORMATS:
        problems.append(Problem("--out", str(out), f"a name that ends in {', '.join(FORMATS)}", "--out curve.png"))
    if problems:
        raise PlotError(problems)
    try:
        picture = draw(curves)
    except ImportError as error:
        raise PlotError(Problem("matplotlib", str(error), "installed; make setup installs it", INSTALL)) from error
    content = io.BytesIO()
    picture.savefig(content, format=out.suffix[1:], dpi=DPI)
    try:
        out.write_bytes(content.getvalue())
    except OSError as error:
        rule = f"a file that can be written: {error.strerror}"
        raise PlotError(Problem("--out", str(out), rule, "name a file in a directory that you may write to")) from error


def read_trained(run: Path, name: str) -> Curve:
    """The curve of a run with at least one step. Raises UnreadableRun."""
    curve = read(run, name)
    if not curve.loss:
        remedy = "train the run first, or name another"
        raise UnreadableRun(Problem("run", str(run / METRICS), "has at least one step", remedy))
    return curve


def draw(curves: Sequence[Curve]) -> Figure:
    """Left the training loss, right the held-out bits per byte. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12, wspace=0.06)
    left, right = figure.subplots(1, 2)
    last = max(1, *(step for curve in curves for step in (*curve.loss, *curve.bits_per_byte)))
    _prepare(left, "Training loss", "nats per token", last)
    _prepare(right, "Held-out text", "bits per byte (lower is better)", last)
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        _loss(left, curve, color)
        _heldout(right, curve, color)
    _baselines(right, curves)
    right.margins(y=0.15)
    left.legend(frameon=False, labelcolor=INK)
    if len(curves) > 1:
        right.legend(frameon=False, labelcolor=INK)
    elif curves[0].bits_per_byte:
        _value(right, *list(curves[0].bits_per_byte.items())[-1])
    return figure


def _prepare(axes: Axes, title: str, unit: str, last: int) -> None:
    """An empty panel for steps up to ``last``."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.set_xlim(0, last * 1.05)
    axes.grid(axis="y", color=PALE)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b0b0b0")


def _loss(axes: Axes, curve: Curve, color: str) -> None:
    """Every step's loss; in a longer run pale, with the mean of its neighbours on top."""
    steps, losses = list(curve.loss), list(curve.loss.values())
    window = len(losses) // 20
    if window < 2:
        axes.plot(steps, losses, color=color, linewidth=1.8, label=label_of(curve))
        return
    axes.plot(steps, losses, color=color, linewidth=1, alpha=0.35)
    label = f"{label_of(curve)} (mean of {2 * (window // 2) + 1} steps)"
    axes.plot(steps, smooth(losses, window), color=color, linewidth=2, label=label)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """At each value the mean of the finite ones within half a window on both sides."""
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    sums = [0.0, *accumulate(finite)]
    counts = [0, *accumulate(int(math.isfinite(value)) for value in values)]
    means: list[float] = []
    for place in range(len(values)):
        half = min(window // 2, place)  # narrow at the beginning, where a curve falls most
        first, end = place - half, min(place + half + 1, len(values))
        count = counts[end] - counts[first]
        means.append((sums[end] - sums[first]) / count if count else math.nan)
    return means


def _heldout(axes: Axes, curve: Curve, color: str) -> None:
    """A point for each evaluation, and the last value in the label."""
    steps, values = list(curve.bits_per_byte), list(curve.bits_per_byte.values())
    label = f"{label_of(curve)}: {values[-1]:.3f}" if values else f"{label_of(curve)}: not evaluated"
    axes.plot(steps, values, color=color, linewidth=2, marker="o", markersize=6, label=label)


def _value(axes: Axes, step: int, value: float) -> None:
    """The number at the end of the only run's line."""
    axes.annotate(
        f"{value:.2f}",
        (step, value),
        xytext=(0, -10),
        textcoords="offset points",
        ha="center",
        va="top",
        color=COLORS[0],
        fontweight="bold",
    )


def _baselines(axes: Axes, curves: Sequence[Curve]) -> None:
    """zlib -9: one line for each value, because runs on the same windows share it."""
    values = {round(curve.zlib, 3) for curve in curves if curve.zlib is not None and math.isfinite(curve.zlib)}
    for value in sorted(values):
        axes.axhline(value, color=INK, linewidth=1.3, linestyle=(0, (5, 3)))
        text, at = f"zlib -9 on the same text: {value:.2f}", axes.get_yaxis_transform()
        axes.annotate(text, (0.02, value), xycoords=at, xytext=(0, 5), textcoords="offset points", color=INK)
