"""All sources of a configuration, prepared once: duplicates found, units, then shards, then manifests."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.amounts import READY, refuse_unknown
from trainer.data.chat.sources import chat_of, told
from trainer.data.paths import in_s3, source_error, typed_keys
from trainer.data.preparing.duplicates import Duplicates
from trainer.data.preparing.manifest import complete, settings_of
from trainer.data.preparing.passes import Passes, cannot_write
from trainer.data.preparing.pool import workers
from trainer.data.preparing.reading import UnitText
from trainer.data.preparing.source import WORK, SourceWork
from trainer.data.preparing.tokenizer import TOKENIZER, given_tokenizer, keep_template, prepared_tokenizer
from trainer.data.preparing.units import inputs, units
from trainer.data.progress import Report
from trainer.data.remote import reading
from trainer.errors import DataError, Problem
from trainer.files import is_directory_name

SHARD_TOKENS = 1 << 30
RESERVED = (TOKENIZER,)
NONE, EXACT, NEAR = "none", "exact", "near"
DEDUP = (NONE, EXACT, NEAR)


@dataclass(frozen=True)
class Options:
    """How sources are prepared.

    shard_tokens: of a shard at the most, unless one document alone is longer. dedup: one of DEDUP; exact leaves out
    documents of a text that an earlier one has, in whichever source, and near those of nearly such a text. threshold:
    share of what the two have in common, for near.
    """

    output: Path
    processes: int
    shard_tokens: int = SHARD_TOKENS
    dedup: str = NONE
    threshold: float | None = None


@dataclass(frozen=True)
class Prepared:
    """A source that is complete. fresh: by this run."""

    name: str
    directory: Path
    manifest: dict[str, Any]
    fresh: bool


def prepare(config: DataConfig, options: Options, report: Report) -> list[Prepared]:
    """Prepare all sources, or go on where an earlier call has stopped. Raises DataError."""
    with typed_keys([source.name for source in config.sources]), _writing(options.output), reading(config):
        for source in config.sources:
            _check(source)
        options.output.mkdir(parents=True, exist_ok=True)
        with _locked(options.output):
            return _prepare(config, options, report)


def _prepare(config: DataConfig, options: Options, report: Report) -> list[Prepared]:
    for source in config.sources:
        _refuse_below(source, options.output)
    config = replace(config, sources=told(config.sources, report))
    found = [inputs(source) for source in config.sources]
    tokenizer = prepared_tokenizer(config, found, options.output, report)
    every = []
    for source, files in zip(config.sources, found, strict=True):
        dedup = {"method": options.dedup, "threshold": options.threshold}
        chat = None if source.chat is None else chat_of(source, config, given_tokenizer(config), report)
        if (said := None if chat is None else chat[1]) is not None:
            keep_template(options.output, said)
        settings = settings_of(source, tokenizer, config.heldout_fraction, dedup, config.bad_documents, said)
        every.append(SourceWork(source, options.output / source.name, settings, files, chat=said))
    done = {}
    for work in every:
        if (manifest := complete(work.directory, work.source.name, work.settings, work.inputs)) is not None:
            shutil.rmtree(work.directory / WORK, ignore_errors=True)  # a kill may have come between
            done[work.source.name] = Prepared(work.source.name, work.directory, manifest, fresh=False)
    works = [work for work in every if work.source.name not in done]
    if works:
        done |= {one.name: one for one in _run(every, works, config, options, report)}
    shutil.rmtree(Duplicates(options.output).root, ignore_errors=True)
    return [done[source.name] for source in config.sources]


def _run(
    every: list[SourceWork], works: list[SourceWork], config: DataConfig, options: Options, report: Report
) -> Iterator[Prepared]:
    """works: those of ``every`` that are not complete."""
    duplicates = _duplicates(every, works, options) if options.dedup != NONE else None
    for work in works:
        work.duplicates = duplicates
        work.begin()
    count = min(options.processes, sum(len(work.pieces) for work in works))
    try:
        with workers(count, options.output / TOKENIZER, config) as team:
            passes = Passes(team, options.output, report)
            if duplicates is not None:
                passes.duplicates(duplicates)
            passes.units(works)
            for work in works:
                refuse_unknown(work.source.name, work.unknown, config.tokenizer)
            plans = [work.shards(options.shard_tokens) for work in works]
            passes.shards([shard for plan in plans for shard in plan])
    except KeyboardInterrupt:
        kept, total = sum(len(work.results) for work in works), sum(len(work.pieces) for work in works)
        report(f"stopped; {kept:,} of {total:,} units are kept, and the same command goes on with the rest")
        raise
    for work, plan in zip(works, plans, strict=True):
        records = [record for shard in plan if (record := shard.written()) is not None]
        yield Prepared(work.source.name, work.directory, work.conclude(records), fresh=True)


def _duplicates(every: list[SourceWork], works: list[SourceWork], options: Options) -> Duplicates:
    """Over all sources, complete ones too. Raises DataError for one that is complete behind one that is not."""
    names = [work.source.name for work in every]
    if (at := names.index(works[0].source.name)) != len(every) - len(works):
        late = next(work.source.name for work in every[at:] if work not in works)
        rule = f"{late} is complete, and was prepared without {names[at]} before it, whose duplicates it may hold"
        remedy = "name sources that are complete first, or choose another --output"
        raise DataError(Problem("--dedup", options.dedup, rule, remedy))
    found = Duplicates(options.output, options.threshold)
    for work in every:
        text = UnitText(work.source, work.inputs.root, [], work.settings["bad_documents"])
        found.add(work.source.name, text, units(work.inputs))
    found.settle()
    return found


def _check(source: SourceConfig) -> None:
    if source.kind in READY:
        rule = "text is prepared; it holds tokens already"
        raise source_error(source, "kind", source.kind, rule, "leave it out: training opens it where it is")
    name = source.name
    if not is_directory_name(name) or name in RESERVED or name.startswith("."):
        rule = f"names a directory below --output, and is none of {', '.join(RESERVED)}"
        raise source_error(source, "name", name, rule, "choose another name")


def _refuse_below(source: SourceConfig, output: Path) -> None:
    """Raises DataError for an output inside a directory that is read: the next run would read what this one wrote."""
    if source.kind == "python_stdlib" or in_s3(source):
        return
    places = {output.resolve(), *output.resolve().parents}
    for path in source.paths:
        spelt = Path(path).expanduser().absolute()
        hits = [spelt] if spelt.exists() else glob.iglob(str(spelt), recursive=True)  # noqa: PTH207 - absolute ones
        if any(Path(hit).resolve() in places for hit in hits):
            rule = f"does not hold --output ({output}): what is written there would be read the next time"
            raise source_error(source, "paths", path, rule, "choose an --output beside the text")


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        rule = f"is a directory, or a place for one ({error.strerror}: {error.filename})"
        raise DataError(Problem("--output", str(output), rule, "choose another --output")) from error
    except OSError as error:
        raise cannot_write(output, error.strerror or str(error)) from error


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """The kernel releases it when the process ends."""
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            rule = "is written by one preparation at a time; another one is at it"
            remedy = "wait until it ends, or choose another --output"
            raise DataError(Problem("--output", str(output), rule, remedy)) from None
        yield
    finally:
        os.close(descriptor)
