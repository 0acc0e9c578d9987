"""From prompts to answers: one pass over the prompts, then a token of every row at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from trainer.errors import DataError, Problem
from trainer.generation.cache import PADDING, Cache
from trainer.generation.opened import Opened
from trainer.generation.sampler import NONE, Sampler
from trainer.generation.settings import GREEDY, Limits, Sampling
from trainer.generation.text import StopStrings, TextStream
from trainer.generation.words import Words

Show = Callable[[int, str], object]
"""Takes text of a row as it becomes certain: (number of the prompt, characters)."""


@dataclass
class Answer:
    """What follows a prompt. tokens: with the one that ended it, if any. text: without special tokens and stop string.

    ended: "end" (the model said so) | "stop" (a stop string) | "tokens" (as many as were asked for) | "window" (the
    model is meant for no more) | "broken" (the model gives no finite logits); empty while it grows.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: str = ""


class Growing:
    """One answer that grows."""

    def __init__(self, prompt: Sequence[int], words: Words | None, limits: Limits, window: int) -> None:
        self.answer = Answer()
        room = window - len(prompt)
        self.most, self._at_most = min(limits.new_tokens, room), "tokens" if limits.new_tokens <= room else "window"
        self._ends = frozenset(words.ends if words is not None else ())
        self._stream = TextStream(words, prompt) if words is not None else None
        self._stops = StopStrings(limits.stop)

    def push(self, token: int) -> str:
        """Take a token, or NONE; the text that is certain now."""
        answer = self.answer
        told = ""
        if token == NONE:
            answer.ended = "broken"
        else:
            answer.tokens.append(token)
            told = self._told(token)
        if not answer.ended and len(answer.tokens) >= self.most:
            answer.ended = self._at_most
        if answer.ended and self._stream is not None:
            told += self._stops.push(self._stream.rest())
            told += self._stops.rest()
            if self._stops.found is not None:
                answer.ended = "stop"
        answer.text += told
        return told

    def _told(self, token: int) -> str:
        if token in self._ends:
            self.answer.ended = "end"
        elif self._stream is not None:
            told = self._stops.push(self._stream.push(token))
            if self._stops.found is not None:
                self.answer.ended = "stop"
            return told
        return ""


def generate(
    opened: Opened,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = GREEDY,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    show: Show | None = None,
    first: int = 0,
) -> list[Answer]:
    """Continue prompts, as ids, together. Collective: every rank gives the same, and gets the same answers.

    first: number of the first prompt among all that are asked for, by which its draws differ from the others'. Raises
    DataError for a prompt without tokens, with an id that the model has no row for, or that fills its window.
    """
    refuse_prompts(opened, prompts, first)
    rows = [Growing(prompt, opened.words, limits, opened.window) for prompt in prompts]
    sampler = Sampler(sampling, prompts, range(first, first + len(prompts)), opened.model.vocab, opened.host)
    length = max(map(len, prompts)) + max(row.most for row in rows)
    with Cache(opened, prompts, length) as cache:
        logits = cache.prefill()
        while True:
            tokens = sampler(logits)
            for number, (row, token) in enumerate(zip(rows, tokens, strict=True)):
                if row.answer.ended:
                    tokens[number] = PADDING  # the row's shape stays; nobody reads what it says
                    continue
                told = row.push(token)
                if token == NONE:
                    tokens[number] = PADDING
                if told and show is not None:
                    show(first + number, told)
            if all(row.answer.ended for row in rows):
                return [row.answer for row in rows]
            logits = cache.forward(torch.tensor(tokens, device=cache.device).unsqueeze(1))


def refuse_prompts(opened: Opened, prompts: Sequence[Sequence[int]], first: int = 0) -> None:
    """Raise DataError, with a problem for each prompt that cannot be continued."""
    problems = []
    for number, prompt in enumerate(prompts, first + 1):
        key = f"prompt {number}"
        if not prompt:
            rule = "has a token to go on from; the tokenizer puts none before a text"
            problems.append(Problem(key, "", rule, "write a prompt"))
        elif len(prompt) >= opened.window:
            rule = f"leaves room in the model's window of {opened.window:,} tokens"
            problems.append(Problem(key, f"{len(prompt):,} tokens", rule, "shorten it, or take another model"))
        elif max(prompt) >= opened.model.vocab:
            rule = f"ids that the model has a row for: below {opened.model.vocab:,}"
            problems.append(Problem(key, max(prompt), rule, "use the model's own tokenizer"))
    if problems:
        raise DataError(problems)
