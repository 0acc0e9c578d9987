"""Exact match: what the model says behind a prompt, greedily, is the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from trainer.data.progress import Advance, Report, track
from trainer.errors import DataError, Problem
from trainer.evaluation.pairs import Cutter
from trainer.evaluation.tasks import Exact, Task
from trainer.generation.generate import generate
from trainer.generation.opened import Opened
from trainer.generation.settings import GREEDY, Limits, Sampling
from trainer.generation.words import Words


@dataclass(frozen=True)
class ExactResult:
    """Of one file. exact_match: share of items whose text is an answer, white space around both left out.

    truncated: prompts that were cut, from their left, to leave room for the answer. said: text of each item. digest: of
    the file.
    """

    name: str
    items: int
    exact_match: float
    truncated: int
    said: list[str]
    seconds: float
    digest: str
    kind: str = "exact_match"


@dataclass(frozen=True)
class Request:
    """A text to continue. Those of one sampling and one limit can be continued together."""

    prompt: str
    limits: Limits
    sampling: Sampling = GREEDY


def score_exact(opened: Opened, words: Words, task: Task, batch: int = 8, report: Report | None = None) -> ExactResult:
    """Collective. Raises DataError for a prompt that cannot be continued. report: told how far it is."""
    start = time.perf_counter()
    requests = requests_of(task)
    with named(task), track(task.name, len(requests), report, "items") as advance:
        said, truncated = continue_all(opened, words, requests, batch, advance)
    seconds = time.perf_counter() - start
    return ExactResult(task.name, len(said), share(task, said), truncated, said, seconds, task.digest)


def requests_of(task: Task) -> list[Request]:
    """What its items ask for."""
    return [Request(item.prompt, Limits(item.tokens, item.stop)) for item in task.exacts]


@contextmanager
def named(task: Task) -> Iterator[None]:
    """A DataError says in which file the item is."""
    try:
        yield
    except DataError as error:
        raise DataError(replace(one, key=f"{task.name}, {one.key}") for one in error.problems) from None


def share(task: Task, said: Sequence[str]) -> float:
    """Of items whose text is an answer."""
    return sum(_right(item, text) for item, text in zip(task.exacts, said, strict=True)) / len(said)


def _right(item: Exact, text: str) -> bool:
    return text.strip() in {answer.strip() for answer in item.answers}


def prompts_of(words: Words, requests: Sequence[Request], window: int) -> tuple[list[list[int]], int]:
    """Ids of each prompt, and how many were cut from their left to fit into ``window`` with what is asked for.

    A prompt without tokens begins with the one that begins a text. Raises DataError, by the item's number, where the
    tokens that are asked for leave no room for a prompt.
    """
    cutter = Cutter(words)
    prompts: list[list[int]] = []
    truncated = 0
    for number, one in enumerate(requests, 1):
        room = window - one.limits.new_tokens
        if room < 1:
            rule = f"leaves room for a prompt in the model's window of {window:,} tokens"
            raise DataError(Problem(f"item {number}: tokens", one.limits.new_tokens, rule, "ask for fewer"))
        ids = cutter.encode(one.prompt) or [cutter.required()]
        truncated += len(ids) > room
        prompts.append(ids[-room:])
    return prompts, truncated


def continue_all(
    opened: Opened,
    words: Words,
    requests: list[Request],
    batch: int = 8,
    advance: Advance = lambda done: None,
) -> tuple[list[str], int]:
    """Texts, in order, and how many prompts were cut from their left to fit. Collective. advance: told of texts.

    Raises DataError as prompts_of does.
    """
    prompts, truncated = prompts_of(words, requests, opened.window)
    said = [""] * len(requests)
    kinds: dict[tuple[Limits, Sampling], list[int]] = {}
    for number, one in enumerate(requests):
        kinds.setdefault((one.limits, one.sampling), []).append(number)
    for (limits, sampling), numbers in kinds.items():
        numbers.sort(key=lambda number: -len(prompts[number]))  # alike in length: little padding
        for start in range(0, len(numbers), batch):
            chosen = numbers[start : start + batch]
            answers = generate(opened, [prompts[number] for number in chosen], sampling, limits, first=start)
            for number, answer in zip(chosen, answers, strict=True):
                said[number] = answer.text
            advance(len(chosen))
    return said, truncated
