"""All sources of a configuration, prepared once: units, then shards, then manifests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.paths import source_error, typed_keys
from trainer.data.preparing.manifest import complete, settings_of
from trainer.data.preparing.pool import Worker, run, workers
from trainer.data.preparing.shards import Shard, to_json
from trainer.data.preparing.source import SourceWork
from trainer.data.preparing.tokenizer import TOKENIZER, prepared_tokenizer
from trainer.data.preparing.units import inputs
from trainer.data.progress import Report, track
from trainer.errors import DataError, Problem
from trainer.files import is_directory_name

SHARD_TOKENS = 1 << 30
RESERVED = (TOKENIZER,)
READY = ("indexed", "prepared")


@dataclass(frozen=True)
class Options:
    """How sources are prepared. shard_tokens: of a shard at the most, unless one document alone is longer."""

    output: Path
    processes: int
    shard_tokens: int = SHARD_TOKENS


@dataclass(frozen=True)
class Prepared:
    """A source that is complete. fresh: by this run."""

    name: str
    directory: Path
    manifest: dict[str, Any]
    fresh: bool


def prepare(config: DataConfig, options: Options, report: Report) -> list[Prepared]:
    """Prepare all sources, or go on where an earlier call has stopped. Raises DataError."""
    with typed_keys([source.name for source in config.sources]), _writing(options.output):
        for source in config.sources:
            _check(source)
        options.output.mkdir(parents=True, exist_ok=True)
        with _locked(options.output):
            return _prepare(config, options, report)


def _prepare(config: DataConfig, options: Options, report: Report) -> list[Prepared]:
    found = [inputs(source) for source in config.sources]
    tokenizer = prepared_tokenizer(config, found, options.output, report)
    done: dict[str, Prepared] = {}
    works = []
    for source, files in zip(config.sources, found, strict=True):
        directory = options.output / source.name
        dedup = {"method": "none", "threshold": None}
        settings = settings_of(source, tokenizer, config.heldout_fraction, dedup, config.bad_documents)
        manifest = complete(directory, source.name, settings, files)
        if manifest is None:
            works.append(SourceWork(source, directory, settings, files))
        else:
            shutil.rmtree(directory / ".work", ignore_errors=True)  # a kill may have come between
            done[source.name] = Prepared(source.name, directory, manifest, fresh=False)
    for work in works:
        work.begin()
    if works:
        count = min(options.processes, max(1, sum(len(work.pieces) for work in works)))
        with workers(count, options.output / TOKENIZER) as team:
            done |= {one.name: one for one in _run(works, team, options, report)}
    return [done[source.name] for source in config.sources]


def _run(works: list[SourceWork], team: list[Worker], options: Options, report: Report) -> Iterator[Prepared]:
    try:
        _units(works, team, options, report)
        plans = [work.shards(options.shard_tokens) for work in works]
        _shards([shard for plan in plans for shard in plan], team, options, report)
    except KeyboardInterrupt:
        kept, units = sum(len(work.results) for work in works), sum(len(work.pieces) for work in works)
        report(f"stopped; {kept:,} of {units:,} units are kept, and the same command goes on with the rest")
        raise
    for work, plan in zip(works, plans, strict=True):
        records = [record for shard in plan if (record := shard.written()) is not None]
        yield Prepared(work.source.name, work.directory, work.conclude(records), fresh=True)


def _units(works: list[SourceWork], team: list[Worker], options: Options, report: Report) -> None:
    missing = [(work, number) for work in works for number in work.missing()]
    if kept := sum(len(work.results) for work in works):
        report(f"  {kept:,} of {kept + len(missing):,} units are there from before")
    sizes = [work.bytes_of(number) for work, number in missing]
    total = sum(sizes) if all(sizes) else None
    told: dict[tuple[str, int], int] = {}
    with track("tokenising", total, report) as advance:

        def answered(task: tuple[SourceWork, int], answer: dict[str, Any]) -> None:
            work, number = task
            key, size = (work.source.name, number), work.bytes_of(number)
            before = told.get(key, 0)
            if "bytes" in answer:
                told[key] = min(before + answer["bytes"], size) if size else before + answer["bytes"]
                advance(told[key] - before)
                return
            _raise_wrong(answer, options.output)
            work.finish(number)
            advance(max(0, size - before))

        run(team, missing, lambda task: {"unit": task[0].task(task[1]).to_json()}, answered)


def _shards(every: list[Shard], team: list[Worker], options: Options, report: Report) -> None:
    missing = [shard for shard in every if shard.written() is None]
    with track("writing shards", None, report) as advance:

        def answered(shard: Shard, answer: dict[str, Any]) -> None:
            _raise_wrong(answer, options.output)
            advance(answer.get("bytes", 0))

        run(team, missing, lambda shard: {"shard": to_json(shard)}, answered)


def _raise_wrong(answer: dict[str, Any], output: Path) -> None:
    """Raises DataError for an answer that says what went wrong."""
    if "problems" in answer:
        raise DataError(Problem(*problem) for problem in answer["problems"])
    if "cannot_write" in answer:
        raise _cannot_write(output, answer["cannot_write"])


def _cannot_write(output: Path, cause: str) -> DataError:
    remedy = "free space there, or see to it; then give the same command again: what is complete is kept"
    return DataError(Problem("--output", str(output), f"cannot be written: {cause}", remedy))


def _check(source: SourceConfig) -> None:
    if source.kind in READY:
        rule = "text is prepared; it holds tokens already"
        raise source_error(source, "kind", source.kind, rule, "leave it out: training opens it where it is")
    name = source.name
    if not is_directory_name(name) or name in RESERVED or name.startswith("."):
        rule = f"names a directory below --output, and is none of {', '.join(RESERVED)}"
        raise source_error(source, "name", name, rule, "choose another name")


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(output, error.strerror or str(error)) from error


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
