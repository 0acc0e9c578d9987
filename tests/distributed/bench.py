"""Trains layouts for the tests that compare them: a case is (layout, precision), or (layout, precision, fault)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests import harness
from tests.distributed.layouts import STEPS, parse
from tests.ranks import PLAIN, Outcomes, Setting, Task, attempt

NATIVE = "tests.distributed.matrix_worker:train_layout"
SECONDS = 300

Case = tuple[str, ...]


def reference(layout: str, precision: str) -> Case:
    """What a layout is compared with: one process, same model and precision."""
    return parse(layout).reference, precision


def train(
    directory: Path, cases: Iterable[Case], steps: int = STEPS, work: str = NATIVE, setting: Setting = PLAIN
) -> Outcomes:
    """What ranks find, by case. References, which the native backend trains, have to come before what needs them."""
    if not (directory / "corpus").exists():
        harness.write_corpus(directory / "corpus")
    tasks = {case: _task(case, steps, work) for case in cases}
    return attempt(tasks, directory, setting)


def train_with_references(directory: Path, cases: Iterable[Case], steps: int = STEPS) -> Outcomes:
    """By the native backend, what cases are compared with and then they themselves."""
    cases = list(cases)
    return train(directory, [*(reference(*case[:2]) for case in cases), *cases], steps)


def _task(case: Case, steps: int, work: str) -> Task:
    layout, precision, *fault = case
    arguments = {
        "layout": layout,
        "precision": precision,
        "steps": steps,
        "reference": "@".join(("reference", *reference(layout, precision))),
        "fault": fault[0] if fault else "",
    }
    return Task(work, parse(layout).processes, arguments, SECONDS, silent=work == NATIVE)
