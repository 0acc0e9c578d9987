"""Multiple choice: the choice that the model finds most likely, by four measures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    behind the context.
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
    kind: str = "multiple_choice"


def score_choices(opened: Opened, words: Words, task: Task, batch: int = 8) -> ChoiceResult:
    """Collective. Raises DataError for a choice that cannot be scored."""
    start, cutter = time.perf_counter(), Cutter(words)
    rows: list[Row] = []
    truncated = own = 0
    for number, item in enumerate(task.choices, 1):
        for choice in item.choices:
            try:
                pair = cutter.pair(item.context, item.delimiter + choice)
                row, cut = pair.row(opened.window)
            except DataError as error:
                keyed = [replace(one, key=f"{task.name}, item {number}: {one.key}") for one in error.problems]
                raise DataError(keyed) from None
            rows.append(row)
            truncated, own = truncated + cut, own + pair.own
    scores = iter(score(opened, rows, batch))
    found = [_picked(item, [next(scores) for _ in item.choices]) for item in task.choices]
    picked = {measure: [one[index] for one in found] for index, measure in enumerate(MEASURES)}
    shares: dict[str, Any] = {measure: _share(picked[measure], task.choices) for measure in MEASURES}
    return ChoiceResult(
        name=task.name,
        items=len(task.choices),
        **shares,
        truncated=truncated,
        own_encoding=own,
        picked=picked,
        seconds=time.perf_counter() - start,
    )


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


def _share(picked: Sequence[int], items: Sequence[Choice]) -> float:
    return sum(one == item.right for one, item in zip(picked, items, strict=True)) / len(items)
