"""Trains references by the native backend and layouts by the neuron one, for the tests that compare the two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import harness
from tests.distributed.contract import read
from tests.distributed.layouts import STEPS, parse
from tests.neuron.processes import RanksFailed, Task, attempt, found_or_raise

DOUBLE = Path(__file__).parent / "double"
DATA = ("corpus", "cache")
"""What ranks look for in the directory that they start in."""


@dataclass(frozen=True)
class Bench:
    """A directory with a corpus and trained references. Make it with ``references``."""

    directory: Path

    def reference(self, layout: str, precision: str) -> Path:
        """Where a layout's reference has left its findings."""
        return self.directory / "out" / f"{parse(layout).reference}@{precision}"

    def one(self, layout: str, precision: str) -> dict[str, Any]:
        """What a layout's reference found."""
        return read(self.reference(layout, precision))[0]

    def task(self, layout: str, precision: str, steps: int = STEPS, fault: str = "") -> Task:
        """Train a layout by the neuron backend, sound or broken."""
        arguments = {
            "layout": layout,
            "precision": precision,
            "steps": steps,
            "reference": str(self.reference(layout, precision)),
        }
        if fault:
            return Task("tests.neuron.faults:train", parse(layout).processes, arguments | {"fault": fault}, seconds=300)
        return Task("tests.neuron.curves:train", parse(layout).processes, arguments, seconds=300)

    def attempt(self, name: str, tasks: Sequence[Task], source: Path) -> list[list[Any] | RanksFailed]:
        """Do tasks in a directory of their own, on the corpus of the references."""
        directory = self.directory / name
        directory.mkdir()
        for data in DATA:
            (directory / data).symlink_to(self.directory / data)
        return attempt(tasks, source, directory)


@dataclass
class Outcomes:
    """What tasks found, by key."""

    found: dict[Any, list[Any] | RanksFailed] = field(default_factory=dict)

    def __getitem__(self, key: Any) -> list[Any]:
        """Every rank's finding. Raises RanksFailed with the ranks' log."""
        return found_or_raise(self.found[key])


def references(directory: Path, wanted: Iterable[tuple[str, str]], steps: int = STEPS) -> Bench:
    """Train, by the native backend in one process, what (layout, precision) pairs are to be compared with."""
    jobs = dict.fromkeys(f"{parse(name).reference}:{precision}:{steps}" for name, precision in wanted)
    if jobs:
        harness.train_layouts(directory, list(jobs), timeout=1200)
    return Bench(directory)


def written(path: Path) -> Any:
    """JSON that a rank has left."""
    return json.loads(path.read_text())
