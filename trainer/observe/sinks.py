"""Where records go: a JSONL file, and a person's screen."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from trainer.config.groups.logging import LoggingConfig
from trainer.observe.records import EvaluationRecord, Record, SaveRecord, SetRecord, StepRecord, to_json

INFINITE = (float("inf"), float("-inf"))


class Sink(Protocol):
    """Takes every record of a run, in order."""

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """Appends records to a file, a line each, in the operating system's hands before the next step starts."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open for the run

    def write(self, record: Record) -> None:
        """One line. JSON has no NaN: a number that is not finite becomes null, beside ``"finite": false``."""
        finite = {key: None if value != value or value in INFINITE else value for key, value in to_json(record).items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file. What it could not take has been said by ``write``."""
        with suppress(OSError):
            self._file.close()


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, steps: int, every_steps: int) -> None:
        self.steps, self.every_steps = steps, every_steps

    def write(self, record: Record) -> None:
        """Print evaluations and saves, and one step in ``every_steps``."""
        if isinstance(record, StepRecord):
            if record.step == 1 or record.step % self.every_steps == 0 or record.step == self.steps:
                self.say(describe(record, self.steps))
        else:
            self.say(describe(record, self.steps))

    def say(self, text: str) -> None:
        """Print at once: a log that lags behind a crash hides it."""
        print(text, flush=True)

    def close(self) -> None:
        """Nothing to close."""


class Bar(Lines):
    """A progress bar on a terminal; evaluations and saves scroll above it."""

    def __init__(self, steps: int, every_steps: int, done: int) -> None:
        super().__init__(steps, every_steps)
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(file=sys.stdout))
        self._task: TaskID = self._progress.add_task("", total=steps, completed=done)
        self._progress.start()

    def write(self, record: Record) -> None:
        """Move the bar at every step, print the rest."""
        if isinstance(record, StepRecord):
            text = f"loss {record.loss:.3f}  {record.tokens_per_second:,.0f} tok/s  {duration(record.eta_seconds)} left"
            self._progress.update(self._task, completed=record.step, description=text)
        else:
            super().write(record)

    def say(self, text: str) -> None:
        """Above the bar, without markup."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        self._progress.stop()


def console_sink(progress: str, steps: int, every_steps: int, done: int) -> Sink | None:
    """The sink that a person sees, by logging.progress."""
    if progress == "off":
        return None
    if progress == "bar" or (progress == "auto" and sys.stdout.isatty()):
        return Bar(steps, every_steps, done)
    return Lines(steps, every_steps)


def open_sinks(metrics: Path, config: LoggingConfig, steps: int, done: int) -> list[Sink]:
    """The metrics file and the screen, for rank 0. ``done``: steps trained before this start."""
    console = console_sink(config.progress, steps, config.every_steps, done)
    return [JsonLines(metrics), *([console] if console else [])]


def write_all(sinks: Sequence[Sink], record: Record) -> None:
    """Hand a record to every sink."""
    for sink in sinks:
        sink.write(record)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42s, 3m10s, 5h02m."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def describe(record: Record, steps: int) -> str:
    """A record as one line (an evaluation's sample on a second)."""
    if isinstance(record, StepRecord):
        share = 100 / record.step_seconds if record.step_seconds else 0.0
        return (
            f"step {record.step:>6}/{steps}  loss {record.loss:.4f}  norm {record.grad_norm:.3f}"
            f"{'' if record.finite else ' NOT FINITE, update skipped'}  lr {record.lr:.2e}"
            f"  {record.tokens_per_second:,.0f} tok/s  MFU {100 * record.mfu:.1f}%"
            f"  data {record.data_seconds * share:.1f}% compute {record.compute_seconds * share:.1f}%"
            f" other {record.other_seconds * share:.1f}%  ETA {duration(record.eta_seconds)}"
        )
    if isinstance(record, SaveRecord):
        return f"step {record.step:>6}/{steps}  saved {record.path} in {record.seconds:.1f}s"
    if isinstance(record, SetRecord):
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())
        return f"step {record.step:>6}/{steps}  {record.set}: {metrics}  {record.seconds:.1f}s"
    assert isinstance(record, EvaluationRecord)
    line = (
        f"step {record.step:>6}/{steps}  held-out loss {record.heldout_loss:.4f}  {record.bits_per_byte:.3f} bits/byte"
        f" (zlib -9 on the same windows: {record.zlib_bits_per_byte:.3f})  {record.seconds:.1f}s"
    )
    return f"{line}\n    sample: {record.sample!r}" if record.sample else line
