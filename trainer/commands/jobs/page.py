"""The ledger as one HTML file that needs no network and no script: jobs, occurrences, why, and curves of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from trainer.commands.jobs.desk import run_of
from trainer.commands.jobs.people import counted, now, when
from trainer.errors import ConfigError, Problem, RunError
from trainer.files import write_atomically
from trainer.jobs.events import CANCELLED, FAILED, PUBLISHED, REJECTED, Occurrence
from trainer.jobs.explain import duration, explain, shown
from trainer.jobs.ledger import Ledger
from trainer.jobs.registry.aliases import ROLL_BACK
from trainer.jobs.registry.versions import Registry
from trainer.jobs.work import Job
from trainer.observe.curves import read
from trainer.observe.svg import COLORS, Line, chart, thin
from trainer.printable import printable

OCCURRENCES, CURVES = 60, 8
"""Newest ones of a job that the page shows, and that it draws."""
STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1040px; margin: 32px auto; padding: 0 16px }
h1 { font-size: 22px } h2 { font-size: 18px; margin: 40px 0 4px } h3 { font-size: 15px; margin: 20px 0 4px }
p { margin: 4px 0; color: #555 } .wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid #e4e4e4; vertical-align: top }
th { font-weight: 600; color: #555 } td { overflow-wrap: anywhere } td.time { white-space: nowrap }
.end { border-radius: 4px; padding: 0 7px; background: #e8e8e8; white-space: nowrap }
.published { background: #d3efdc } .rejected { background: #fbe7c6 } .failed { background: #f8d4d4 }
.open { background: #d8e6f7 } details summary { cursor: pointer } pre { white-space: pre-wrap; font-size: 13px }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: #555 } .grid { stroke: #e4e4e4 }
.curve { fill: none; stroke-width: 1.7; stroke-linecap: round; stroke-linejoin: round }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px }
.named { white-space: nowrap; margin-right: 18px; color: #555; display: inline-block }"""
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
COLORED = (PUBLISHED, REJECTED, FAILED, CANCELLED)


def write_page(ledger: Ledger, jobs: Sequence[Job], registry: Callable[[Job], Registry], file: Path) -> Iterator[str]:
    """Write it whole or not at all; a line about it. Raises ConfigError where it cannot be written."""
    text = "\n".join(_page(ledger, jobs, registry))
    try:
        write_atomically(file, text)
    except OSError as error:
        rule = f"can be written ({error.strerror})"
        raise ConfigError(Problem("FILE", str(file), rule, "name a file in a directory that exists")) from None
    yield f"{file}: {counted(len(jobs), 'job')}, {len(text) / 1000:,.0f} kB"


def _page(ledger: Ledger, jobs: Sequence[Job], registry: Callable[[Job], Registry]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
    yield f'<title>Scheduled jobs</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
    yield f"<h1>Scheduled jobs</h1><p>{shown(now().isoformat())} UTC, from {_text(ledger.root)}</p>"
    for job in jobs:
        yield from _job(ledger, job, registry(job))
    yield "</body></html>\n"


def _job(ledger: Ledger, job: Job, registry: Registry) -> Iterator[str]:
    slots = ledger.slots(job.name)
    found = [ledger.occurrence(job.name, slot) for slot in reversed(slots[-OCCURRENCES:])]
    enabled = "" if job.config.enabled else "; not enabled"
    yield f"<h2>{_text(job.name)}</h2><p>{_text(when(job))}; recipe {_text(job.config.recipe)}{enabled}</p>"
    yield from _champion(registry)
    yield from _curves(found)
    yield f"<h3>{counted(len(slots), 'occurrence')}</h3>"
    if not found:
        return
    yield '<div class="wide"><table><tr><th>slot</th><th>end</th><th>took</th><th>why</th></tr>'
    for one in found:
        yield _row(ledger, one)
    yield "</table></div>"


def _champion(registry: Registry) -> Iterator[str]:
    """Which version it is, and how the alias has moved."""
    moves = registry.moves("champion")
    version = registry.alias("champion").version
    yield f"<p>champion: <b>{_text(version or 'none yet')}</b></p>"
    if moves:
        yield f"<details><summary>{counted(len(moves), 'move')} of it</summary><pre>"
        for move in reversed(moves):
            what = "rolled back" if move["kind"] == ROLL_BACK else f"to {move['version']}"
            yield _text(f"{shown(move['time'])}  {what}, by {move['by']}: {move['why']}")
        yield "</pre></details>"


def _curves(found: Sequence[Occurrence]) -> Iterator[str]:
    """Training losses of the newest runs that have some."""
    lines: list[Line] = []
    for one in found:
        if len(lines) == CURVES or not one.record("prepare"):
            continue
        try:
            loss = read(run_of(one), one.slot).loss
        except RunError:  # a run that is kept no longer, or has not begun
            continue
        color = COLORS[len(lines) % len(COLORS)]
        lines.append(Line(one.slot, thin(sorted(loss.items())), color, f"run-{len(lines)}"))
    if drawn := chart("training loss of the newest runs", "nats per token", lines):
        yield f"<h3>Training loss</h3>{drawn}"
        for line in lines:
            swatch = f'<span class="swatch" style="background:{line.color}"></span>'
            yield f'<span class="named">{swatch}{_text(line.name)}</span>'


def _row(ledger: Ledger, one: Occurrence) -> str:
    state = one.end or f"{one.current} {one.stages[one.current].state}"
    kind = one.end if one.end in COLORED else "" if one.end else "open"
    entries = ledger.log(one.job, one.slot).read()
    story = "\n".join(map(_text, explain(one, entries)))
    why = _text(one.why or one.stages[one.current].reason or "open")
    return (
        f'<tr><td class="time">{_text(one.slot)}</td><td><span class="end {kind}">{_text(state)}</span></td>'
        f'<td class="time">{duration(one)}</td>'
        f"<td><details><summary>{why}</summary><pre>{story}</pre></details></td></tr>"
    )


def _text(text: str) -> str:
    """As text of the page, whoever wrote it."""
    return escape(printable(text))
