"""A comparison as one HTML file that needs no network: SVG, a few lines of script, nothing from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from trainer.commands.compare_runs.comparison import Comparison
from trainer.commands.compare_runs.table import HEAD, grid, summary
from trainer.observe.svg import COLORS, LEFT, RIGHT, WIDTH, Line, chart, thin
from trainer.printable import printable

_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1040px; margin: 32px auto; padding: 0 16px }
h1 { font-size: 22px } h2 { font-size: 17px; margin: 32px 0 8px }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid #e4e4e4; vertical-align: top }
th { font-weight: 600; color: #555 } td { overflow-wrap: anywhere; min-width: 4em }
td:first-child { overflow-wrap: normal }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: #555 }
.grid { stroke: #e4e4e4 } .curve path { fill: none }
.curve { stroke-width: 1.7; stroke-linecap: round; stroke-linejoin: round }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px }
#readout { min-height: 1.5em; color: #555; font-variant-numeric: tabular-nums } .off { display: none }"""
_SCRIPT = """\
"use strict";
const curves = JSON.parse(document.getElementById("curves").textContent);
const readout = document.getElementById("readout"), plot = document.querySelector("svg");
for (const box of document.querySelectorAll("input[data-run]")) {
  box.addEventListener("change", () => {
    for (const curve of document.querySelectorAll("." + box.dataset.run)) curve.classList.toggle("off", !box.checked);
  });
}
if (plot) plot.addEventListener("mousemove", (event) => {
  const box = plot.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * curves.width;
  const share = (at - curves.left) / (curves.width - curves.left - curves.right);
  const step = Math.round(curves.first + share * (curves.last - curves.first));
  const near = (points) => points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
  readout.textContent = "near step " + step + ": " + curves.runs.filter((run) => run.points.length).map((run) => {
    const place = near(run.points);
    return run.name + " " + (place[1] === null ? "not finite" : place[1].toFixed(4)) + " at " + place[0];
  }).join("   ");
});"""
_CSP = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""No page of ours loads anything: a browser that is told so refuses what a name might smuggle in."""


def page(comparison: Comparison) -> str:
    """The whole file. Everything that a run's directory holds is escaped: names are anybody's."""
    lines = _lines([run.curve.loss for run in comparison.runs], comparison)
    held_out = _lines([run.curve.bits_per_byte for run in comparison.runs], comparison)
    title = f"{len(comparison.runs)} run{'s' if len(comparison.runs) > 1 else ''} compared"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">',
            f'<title>{title}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>',
            f"<h1>{title}</h1>",
            *_plot("Training loss", "nats per token", lines),
            '<p id="readout"></p>',
            *_table([HEAD, *(summary(run) for run in comparison.runs)], swatches=True),
            *_partings(comparison),
            *_plot("Held-out text", "bits per byte", held_out),
            *_differences("Settings that differ", comparison, comparison.settings),
            *_differences("Machines that differ", comparison, comparison.machine),
            f'<script type="application/json" id="curves">{_data(lines)}</script>',
            f"<script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def _lines(curves: Sequence[Mapping[int, float]], comparison: Comparison) -> list[Line]:
    """A line for each run, in its color, with as many points as are seen."""
    return [
        Line(printable(run.name), thin(sorted(curve.items())), COLORS[number % len(COLORS)], f"run-{number}")
        for number, (run, curve) in enumerate(zip(comparison.runs, curves, strict=True))
    ]


def _plot(title: str, unit: str, lines: Sequence[Line]) -> Iterator[str]:
    drawn = chart(title, unit, lines)
    if drawn or title == "Training loss":
        yield f"<h2>{title}</h2>"
        yield drawn or "<p>No run has a finite loss yet.</p>"


def _partings(comparison: Comparison) -> Iterator[str]:
    if comparison.partings:
        first = printable(comparison.runs[0].name)
        yield f"<h2>Where they part from {escape(first)}</h2>"
        yield from _table([("run", "training loss"), *((p.name, str(p)) for p in comparison.partings)])


def _differences(title: str, comparison: Comparison, differing: dict[str, list[object]]) -> Iterator[str]:
    if len(comparison.runs) > 1:
        yield f"<h2>{title}</h2>"
        yield from _table(grid(comparison.runs, differing)) if differing else ["<p>None.</p>"]


def _table(rows: Sequence[Sequence[str]], swatches: bool = False) -> Iterator[str]:
    head, *body = [[escape(printable(text)) for text in row] for row in rows]
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{text}</th>" for text in head) + "</tr>"
    for number, row in enumerate(body):
        if swatches:
            box = f'<input type="checkbox" checked data-run="run-{number}" aria-label="show {row[0]}">'
            color = COLORS[number % len(COLORS)]
            row[0] = f'<label>{box} <span class="swatch" style="background:{color}"></span>{row[0]}</label>'
        yield "<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>"
    yield "</table></div>"


def _data(lines: Sequence[Line]) -> str:
    """What the script reads. A < is written as JSON may write it: nothing can end the element early."""
    steps = [step for line in lines for step, value in line.points if math.isfinite(value)] or [0]
    runs = [
        {
            "name": line.name,
            "points": [[step, value if math.isfinite(value) else None] for step, value in line.points],
        }
        for line in lines
    ]
    values = {"width": WIDTH, "left": LEFT, "right": RIGHT, "first": min(steps), "last": max(steps)}
    return json.dumps({**values, "runs": runs}).replace("<", "\\u003c")
