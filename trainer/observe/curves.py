"""What a run recorded, by step, read back from its metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import ExitCode, Problem, RunError
from trainer.run.directory import METRICS


class UnreadableRun(RunError):
    """A run's records cannot be read."""

    code = ExitCode.CONFIG
    title = "a run cannot be read"


@dataclass
class Curve:
    """What one run recorded, by step. A number that was not finite is NaN, so that a line has a gap there."""

    name: str
    loss: dict[int, float] = field(default_factory=dict)
    """Nats per target token."""
    tokens_per_second: dict[int, float] = field(default_factory=dict)
    bits_per_byte: dict[int, float] = field(default_factory=dict)
    """Of held-out text."""
    zlib: float | None = None
    """Bits per byte of zlib -9 on the windows of the last evaluation."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record. Raises KeyError, TypeError or ValueError where it is none of trainer/observe/records.py."""
        step = int(record["step"])
        if record["kind"] == "step":
            self.loss[step] = _number(record["loss"])
            self.tokens_per_second[step] = _number(record.get("tokens_per_second"))
        elif record["kind"] == "evaluation":
            self.bits_per_byte[step] = _number(record["bits_per_byte"])
            self.zlib = _number(record["zlib_bits_per_byte"])


def _number(value: float | None) -> float:
    """A recorded number. What was not finite is recorded as null."""
    return math.nan if value is None or not math.isfinite(value) else float(value)


def read(run: Path, name: str) -> Curve:
    """The curve of a run's directory, which may have no step yet. Raises UnreadableRun."""
    path, curve = run / METRICS, Curve(name)
    text = _text(run, path)
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1], 1):  # a kill may cut the last line short; it then has no line end
        try:
            curve.add(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            rule = f"line {number} is a record of trainer/observe/records.py, not {line[:40]!r}"
            remedy = "remove the line, or give the run's command again: a resume drops lines that it cannot read"
            raise UnreadableRun(Problem("run", str(path), rule, remedy)) from error
    return curve


def _text(run: Path, path: Path) -> str:
    """The run's records as text."""
    try:
        if not run.is_dir():
            raise UnreadableRun(Problem("run", str(run), "the directory of a run", "look for it with ls runs"))
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        rule = f"a readable file of records, which a run writes from its first step on: {why}"
        raise UnreadableRun(Problem("run", str(path), rule, "train the run first, or name another")) from error


def distinct(runs: list[Path]) -> list[str]:
    """A name for each directory: its last part, or the path where two share it."""
    names = [run.absolute().name for run in runs]
    return [name if names.count(name) == 1 else str(run) for run, name in zip(runs, names, strict=True)]
