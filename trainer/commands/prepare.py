"""scripts/prepare.py: its options, and what it says."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.config.homes import expanded
from trainer.config.schema import Config
from trainer.data.preparing.preparation import DEDUP, NEAR, NONE, SHARD_TOKENS, Options, Prepared, prepare
from trainer.data.preparing.tokenizer import TOKENIZER
from trainer.data.tokenizing import SourceFigures
from trainer.errors import ConfigError, ExitCode, Problem
from trainer.rules.places import REMOTE
from trainer.run.ending import tell
from trainer.run.world import World

PLAIN = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_/][\w./-]*", re.ASCII)
"""What Hydra's grammar takes for a string as it is."""
COLUMNS = ("source", "documents", "tokens", "held out", "bytes/token", "skipped", "removed")
NEAR_THRESHOLD = 0.8
NO_RECIPE = "recipe=tiny"
"""Only its data group counts, and --source is said to be all of that."""


def options_of(description: str | None) -> argparse.Namespace:
    """This command's options, taken off the command line that Hydra reads. A mistake ends the process with code 3."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", metavar="DIR", help="what is prepared goes there; the same again goes on")
    parser.add_argument("--source", metavar="PATH", action="append", default=[], help="short for data.sources")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="without: one a core")
    parser.add_argument("--dedup", choices=DEDUP, default=NONE, help="of exact or near duplicates the first stays")
    parser.add_argument("--near-threshold", type=float, help=f"of --dedup near, {NEAR_THRESHOLD} without it")
    parser.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS, help="of a shard, at the most")
    try:
        found, rest = parser.parse_known_args()
        _check(found)
    except SystemExit as error:  # argparse has said what it does not understand
        sys.exit(int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE))
    except ConfigError as error:
        sys.exit(tell(error, World(), None))
    if found.source:
        rest.append(f"data.sources=[{', '.join(_sources(found.source))}]")
        rest += [] if any(word.startswith("recipe=") for word in rest) else [NO_RECIPE]
    sys.argv[1:] = rest
    return found


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError."""
    problems = []
    if not options.output:
        problems.append(Problem("--output", options.output, "names a directory", "give --output DIR"))
    elif REMOTE in options.output:
        remedy = "write to a local or mounted directory, and copy it afterwards"
        problems.append(Problem("--output", options.output, "a local directory: remote ones are not written", remedy))
    elif expanded(options.output).startswith("~"):
        remedy = "write the directory in full; ./~name is one of that name"
        problems.append(Problem("--output", options.output, "begins with the home of a user of this machine", remedy))
    for key, value in (("--processes", options.processes), ("--shard-tokens", options.shard_tokens)):
        if value < 1:
            problems.append(Problem(key, value, "at least 1", "leave it out, or give a larger number"))
    if options.near_threshold is not None and options.dedup != NEAR:
        problems.append(Problem("--near-threshold", options.near_threshold, "of --dedup near", "add that"))
    elif options.near_threshold is not None and not 0.5 <= options.near_threshold <= 1:
        rule = "a share from 0.5 to 1: documents that share less are not alike"
        problems.append(Problem("--near-threshold", options.near_threshold, rule, f"use {NEAR_THRESHOLD}"))
    if problems:
        raise ConfigError(problems)


def _sources(paths: list[str]) -> Iterator[str]:
    """Each as Hydra's grammar has it, under a name made of its path."""
    names: set[str] = set()
    for path in paths:
        stem = Path(path).name.partition(".")[0].strip("*") or Path(path).parent.name or "corpus"
        name = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(paths) + 2))) if name not in names)
        names.add(name)
        yield f"{{name: {_quoted(name)}, paths: [{_quoted(path)}]}}"


def _quoted(text: str) -> str:
    """For Hydra."""
    if PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def run(config: Config, options: argparse.Namespace) -> Iterator[str]:
    """Prepare, and say what came of it. Raises DataError."""
    output = Path(expanded(options.output)).absolute()
    threshold = (options.near_threshold or NEAR_THRESHOLD) if options.dedup == NEAR else None
    asked = Options(output, options.processes, options.shard_tokens, options.dedup, threshold)
    done = prepare(config.data, asked, _report)
    if not any(one.fresh for one in done):
        yield f"{output} is complete: nothing to do"
    yield from table(done)
    yield "train with:"
    yield from (f"  {line}" for line in _to_train(done, output))


def _report(line: str) -> None:
    print(line, flush=True)


def table(done: list[Prepared]) -> Iterator[str]:
    """A row for each source."""
    rows = [COLUMNS, *(_row(one) for one in done)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([row[0].ljust(widths[0]), *cells])
    for one in done:
        figures = SourceFigures.of(one.manifest["figures"])
        yield from figures.lines(one.name)
        if not figures.train.documents:
            yield f"  {one.name}: all documents are held out: there is nothing to train on (data.heldout_fraction)"
        if figures.unknown:
            share = figures.unknown / (figures.train.tokens + figures.heldout.tokens)
            yield f"  {one.name}: {share:.3%} of the tokens are unknown: their text is lost to the model"


def _row(one: Prepared) -> tuple[str, ...]:
    figures = SourceFigures.of(one.manifest["figures"])
    both = figures.train + figures.heldout
    skipped = sum(count.number for count in figures.skipped.bad.values())
    per_token = f"{both.bytes / both.tokens:.2f}" if both.tokens else "-"
    numbers = (both.documents, both.tokens, figures.heldout.documents)
    removed = one.manifest["dedup"]["removed"]
    return (one.name, *(f"{number:,}" for number in numbers), per_token, f"{skipped:,}", f"{removed:,}")


def _to_train(done: list[Prepared], output: Path) -> Iterator[str]:
    """The overrides, as a shell takes them."""
    names = [(_quoted(one.name), _quoted(str(one.directory))) for one in done]
    sources = ", ".join(f"{{name: {name}, kind: prepared, paths: [{path}]}}" for name, path in names)
    tokenizer = f"data.tokenizer.path={_quoted(str(output / TOKENIZER))}"
    yield shlex.join([f"data.sources=[{sources}]", "data.tokenizer.kind=file", tokenizer])
