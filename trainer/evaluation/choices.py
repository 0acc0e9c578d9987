"""Multiple choice: the choice that the model finds most likely, by four measures."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.data.progress import Report
from trainer.errors import DataError
from trainer.evaluation.pairs import Cutter
from trainer.evaluation.scoring import Row, Score, score
from trainer.evaluation.tasks import Choice, Task
from trainer.generation.opened import Opened
from trainer.generation.words import Words

MEASURES = ("acc", "acc_norm", "acc_bytes", "acc_tokens")
"""The choice with the highest log-probability; the same over its characters, its bytes (UTF-8), its tokens. The first
three are lm-eval's, where the delimiter counts in none of them.
"""
NOT_FINITE = -1
"""The choice of a model that gives no probabilities: no comparison with such a number holds, and the first would be
taken.
"""


@dataclass(frozen=True)
class ChoiceResult:
    """Of one file. acc...: shares of items. picked: by each measure, the choice of each item; -1: NOT_FINITE.

    truncated: choices whose context was cut to fit the window. own_encoding: choices that had no token of their own
    behind the context. digest: of the file.
    """

    name: str
    items: int
    acc: float
    acc_norm: float
    acc_bytes: float
    acc_tokens: float
    truncated: int
    own_encoding: int
    picked: dict[str, list[int]]
    seconds: float
    digest: str
    kind: str = "multiple_choice"


@dataclass(frozen=True)
class ChoiceRows:
    """Every choice of every item, in order, as what is scored. truncated, own_encoding: see ChoiceResult."""

    rows: list[Row]
    truncated: int
    own_encoding: int


def rows_of(task: Task, words: Words, window: int) -> ChoiceRows:
    """window: tokens that the model takes. Raises DataError, by item, for a choice that cannot be scored."""
    cutter = Cutter(words)
    rows: list[Row] = []
    truncated = own = 0
    for number, item in enumerate(task.choices, 1):
        for choice in item.choices:
            try:
                pair = cutter.pair(item.context, item.delimiter + choice)
                row, cut = pair.row(window)
            except DataError as error:
                keyed = [replace(one, key=f"{task.name}, item {number}: {one.key}") for one in error.problems]
                raise DataError(keyed) from None
            rows.append(row)
            truncated, own = truncated + cut, own + pair.own
    return ChoiceRows(rows, truncated, own)


def score_choices(
    opened: Opened, words: Words, task: Task, batch: int = 8, report: Report | None = None
) -> ChoiceResult:
    """Collective. Raises DataError for a choice that cannot be scored. report: told how far it is."""
    start = time.perf_counter()
    found = rows_of(task, words, opened.window)
    picked = picks(task.choices, score(opened, found.rows, batch, task.name, report))
    return ChoiceResult(
        name=task.name,
        items=len(task.choices),
        **shares(task.choices, picked),
        truncated=found.truncated,
        own_encoding=found.own_encoding,
        picked=picked,
        seconds=time.perf_counter() - start,
        digest=task.digest,
    )


def picks(items: Sequence[Choice], scores: Iterable[Score]) -> dict[str, list[int]]:
    """By each of MEASURES the choice of each item. scores: of all choices, in order."""
    following = iter(scores)
    found = [_picked(item, [next(following) for _ in item.choices]) for item in items]
    return {measure: [one[index] for one in found] for index, measure in enumerate(MEASURES)}


def shares(items: Sequence[Choice], picked: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """By each of MEASURES the share of items whose choice is the right one."""
    right = [item.right for item in items]
    return {name: sum(map(operator.eq, found, right)) / len(items) for name, found in picked.items()}


def _picked(item: Choice, scores: Sequence[Score]) -> list[int]:
    """By each of MEASURES; of equals the first, as numpy's argmax."""
    if not all(math.isfinite(one.nats) for one in scores):
        return [NOT_FINITE] * len(MEASURES)
    sizes = (
        [1] * len(scores),
        [len(choice) for choice in item.choices],
        [len(choice.encode()) for choice in item.choices],
        [one.targets for one in scores],
    )
    return [min(range(len(scores)), key=lambda n: scores[n].nats / size[n]) for size in sizes]
