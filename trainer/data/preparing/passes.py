"""What workers are set to, one pass after another, and how far each is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trainer.data.preparing.duplicates import Duplicates
from trainer.data.preparing.pool import Worker, run
from trainer.data.preparing.shards import Shard, to_json
from trainer.data.preparing.source import SourceWork
from trainer.data.progress import Report, track
from trainer.errors import ConfigError, DataError, ExitCode, Problem


class Passes:
    """The passes of one preparation. Each raises DataError for what a worker says, and for one that dies."""

    def __init__(self, team: list[Worker], output: Path, report: Report) -> None:
        self._team, self._output, self._report = team, output, report

    def duplicates(self, duplicates: Duplicates) -> None:
        """Hash all texts, then find those that are equal."""
        hashings = duplicates.hashings()
        sizes = [one.bytes for one in hashings]
        self._run("hashing", hashings, sizes, lambda one: {"hashing": one.to_json()})
        buckets = duplicates.buckets()
        self._run("finding duplicates", buckets, [1] * len(buckets), lambda one: {"bucket": one}, unit="buckets")

    def units(self, works: list[SourceWork]) -> None:
        """Tokenise all units that are missing."""
        missing = [(work, number) for work in works for number in work.missing()]
        if kept := sum(len(work.results) for work in works):
            self._report(f"  {kept:,} of {kept + len(missing):,} units are there from before")
        sizes = [work.bytes_of(number) for work, number in missing]
        self._run(
            "tokenising",
            missing,
            sizes,
            lambda one: {"unit": one[0].task(one[1]).to_json()},
            done=lambda one: one[0].finish(one[1]),
        )

    def shards(self, every: list[Shard]) -> None:
        """Write all shards that are missing."""
        missing = [shard for shard in every if shard.written() is None]
        self._run("writing shards", missing, [shard.bytes for shard in missing], lambda one: {"shard": to_json(one)})

    def _run(
        self,
        title: str,
        tasks: list[Any],
        sizes: list[int],
        message: Callable[[Any], dict[str, Any]],
        unit: str | None = None,
        done: Callable[[Any], None] = lambda task: None,
    ) -> None:
        """sizes: of the tasks, in bytes or in ``unit``; all of a task is told at its end, if it has not been before."""
        total = sum(sizes) if all(sizes) else None
        told = [0] * len(tasks)
        with track(title, total, self._report, unit) as advance:

            def answered(number: int, answer: dict[str, Any]) -> None:
                self._raise_wrong(answer)
                if "done" in answer:
                    done(tasks[number])
                now = max(told[number], sizes[number]) if "done" in answer else told[number] + answer["bytes"]
                now = min(now, sizes[number] or now)
                advance(now - told[number])
                told[number] = now

            numbers: Iterable[int] = range(len(tasks))
            run(self._team, numbers, lambda number: message(tasks[number]), answered)

    def _raise_wrong(self, answer: dict[str, Any]) -> None:
        """Raises DataError for an answer that says what went wrong, or ConfigError for a callable that is none."""
        if "problems" in answer:
            kind = ConfigError if answer["code"] == ExitCode.CONFIG else DataError
            raise kind(Problem(*problem) for problem in answer["problems"])
        if "cannot_write" in answer:
            raise cannot_write(self._output, answer["cannot_write"])


def cannot_write(output: Path, cause: str) -> DataError:
    """The error for a disk that is full, or closed. cause: the system's words."""
    remedy = "free space there, or see to it; then give the same command again: what is complete is kept"
    return DataError(Problem("--output", str(output), f"cannot be written: {cause}", remedy))
