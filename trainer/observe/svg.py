"""Curves as SVG text, with no library and no font of its own: for pages that open without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 860, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 40
"""Pixels around the plot: room for the axes' numbers."""
POINTS = 600
"""Of a curve, at most about so many are drawn: more than one in a pixel is not seen."""
DOTS = 30
"""Where no curve has more points, each is shown."""
COLORS = ("#2563a8", "#d9631e", "#2e8b57", "#8e4ec6", "#b8860b", "#c2406b", "#0f8b8d", "#6b7280")
"""One for each curve, then again from the first."""

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Line:
    """One curve. points: (step, value) by step; a NaN is a gap. group: the CSS class that shows and hides it."""

    name: str
    points: Points
    color: str
    group: str


@dataclass(frozen=True)
class Range:
    """From a value to a pixel, along one axis."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)


def thin(points: Points, limit: int = POINTS) -> list[tuple[int, float]]:
    """At most about ``limit`` points: of each stretch the lowest and the highest, and whether there was a gap.

    So a spike of one step stays, which a mean or every n-th point would lose. First and last stay, too.
    """
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / (limit // 3))
    kept = [points[0]]
    for start in range(1, len(points) - 1, size):
        stretch = points[start : min(start + size, len(points) - 1)]
        finite = [place for place in stretch if math.isfinite(place[1])]
        gaps = [place for place in stretch if not math.isfinite(place[1])][:1]
        ends = {min(finite, key=_value), max(finite, key=_value)} if finite else set()
        kept += sorted([*ends, *gaps], key=_step)
    return [*kept, points[-1]]


def _value(place: tuple[int, float]) -> float:
    return place[1]


def _step(place: tuple[int, float]) -> int:
    return place[0]


def chart(label: str, unit: str, lines: Sequence[Line]) -> str:
    """A plot over steps; empty where no line has a finite point. label: what a screen reader says."""
    places = [place for line in lines for place in line.points if math.isfinite(place[1])]
    if not places:
        return ""
    values = [value for _, value in places]
    margin = 0.04 * (max(values) - min(values)) or max(abs(max(values)) * 0.01, 1e-9)
    few = max(len(line.points) for line in lines) <= DOTS
    first, last = min(place[0] for place in places), max(place[0] for place in places)
    x = Range(first, last, LEFT, WIDTH - RIGHT) if first < last else Range(first - 1, last + 1, LEFT, WIDTH - RIGHT)
    y = Range(min(values) - margin, max(values) + margin, HEIGHT - BOTTOM, TOP)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
            *_axes(x, y, unit),
            *(_drawn(line, x, y, few or len(line.points) == 1) for line in lines),
            "</svg>",
        ]
    )


def _axes(x: Range, y: Range, unit: str) -> Iterator[str]:
    for value in ticks(y.low, y.high):
        at = f"{y.at(value):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text x="{LEFT - 8}" y="{at}" text-anchor="end" dominant-baseline="middle">{value:g}</text>'
    for value in ticks(x.low, x.high):
        if value == int(value):
            place = f'x="{x.at(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            yield f'<text {place} text-anchor="middle">{int(value)}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">step</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {middle})" x="12" y="{middle}"'
    yield f'<text {turned} text-anchor="middle" dominant-baseline="middle">{escape(unit)}</text>'


def _drawn(line: Line, x: Range, y: Range, dotted: bool) -> str:
    """One path, in which a point between two gaps is a line of no length; a dot for each point, if dotted."""
    words, pen = [], False
    for step, value in line.points:
        if math.isfinite(value):
            words.append(f"{'L' if pen else 'M'}{x.at(step):.1f} {y.at(value):.1f}{'' if pen else 'h0'}")
        pen = math.isfinite(value)
    style = f'class="curve {escape(line.group)}" stroke="{line.color}"'
    dots = [place for place in line.points if math.isfinite(place[1])] if dotted else []
    at = "".join(f'<circle cx="{x.at(step):.1f}" cy="{y.at(value):.1f}" r="3"/>' for step, value in dots)
    title = f"<title>{escape(line.name)}</title>"
    return f'<g {style} fill="{line.color}">{title}<path d="{" ".join(words)}"/>{at}</g>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    sizes = [factor * power for factor in (1, 2, 5, 10)]
    size = next((b for a, b in pairwise([0.0, *sizes]) if a < rough <= b), sizes[-1])
    return [round(n * size, 12) for n in range(math.ceil(low / size), math.floor(high / size) + 1)]
