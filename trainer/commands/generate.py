"""scripts/generate.py: prompts from the command line or standard input, answers to standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from trainer.commands.prompts import read_line, read_prompts, refuse_surrogates
from trainer.errors import ConfigError, Problem
from trainer.generation.settings import Limits, Sampling
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.generation.chat import ChatTemplate
    from trainer.generation.generate import Answer
    from trainer.generation.opened import Opened
    from trainer.generation.words import Words

ENDED = {
    "end": "the model ended the text",
    "stop": "a stop string came",
    "tokens": "as many tokens as asked for",
    "window": "the model's window is full",
}


@dataclass(frozen=True)
class Asked:
    """The command's options, as scripts/generate.py names them. prompts: empty: from standard input."""

    model: str
    prompts: tuple[str, ...]
    sampling: Sampling
    limits: Limits
    lines: bool = False
    chat: bool = False
    system: str | None = None
    batch: int = 8
    dtype: str | None = None
    json: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Asked:
        """From parsed arguments. Raises ConfigError with every mistake in them; imports no torch."""
        sampling = Sampling(**{one.name: options[one.name] for one in fields(Sampling)})
        limits = Limits(options["tokens"], tuple(options["stop"] or ()))
        own = {name: options[name] for name in ("model", "lines", "chat", "system", "batch", "dtype", "json")}
        asked = cls(prompts=tuple(options["prompt"] or ()), sampling=sampling, limits=limits, **own)
        if problems := list(asked.problems()):
            raise ConfigError(problems)
        return asked

    @property
    def talks(self) -> bool:
        """Whether standard input is a conversation."""
        return self.chat and not self.prompts and not self.lines

    def problems(self) -> Iterator[Problem]:
        """What does not fit together, or is out of range."""
        yield from self.sampling.problems()
        yield from self.limits.problems()
        if self.batch < 1:
            yield Problem("--batch", self.batch, "1 or more", "give one, or leave it out")
        if self.lines and self.prompts:
            rule = "says how standard input is read; --prompt gives the prompts"
            yield Problem("--lines", True, rule, "leave one of them out")
        if self.system is not None and not self.chat:
            yield Problem("--system", self.system, "is a part of a chat", "add --chat, or put it into the prompt")
        if self.talks and self.json:
            yield Problem("--json", True, "is for prompts, not for a conversation", "give --prompt or --lines")


def generate(asked: Asked, world: World) -> None:
    """Open the model on every rank; rank 0 reads and prints. Raises ConfigError and DataError."""
    typed = asked.prompts or (() if asked.talks or world.rank else tuple(read_prompts(asked.lines)))
    for number, prompt in enumerate(typed, 1):
        refuse_surrogates(f"prompt {number}", prompt)
    from trainer.generation.fast import quicken  # brings torch
    from trainer.generation.opened import opened_model

    with opened_model(asked.model, asked.dtype, world) as opened:
        words, template = _words(opened, asked)
        quicken(opened)
        if asked.talks:
            assert template is not None
            _talk(opened, words, template, asked)
            return
        texts = _told(opened, typed)
        prompts = [_encoded(text, words, template, asked.system) for text in texts]
        _answer_all(opened, texts, prompts, asked)


def _words(opened: Opened, asked: Asked) -> tuple[Words, ChatTemplate | None]:
    if opened.words is None:
        rule = "has a tokenizer (tokenizer.json); a run keeps one where its text was tokenised by a file"
        raise ConfigError(Problem("MODEL", asked.model, rule, "save the model's fast tokenizer there"))
    if not asked.chat:
        return opened.words, None
    if opened.words.template is None:
        rule = "the tokenizer has a chat template (chat_template.jinja); this one has none"
        raise ConfigError(Problem("--chat", True, rule, "leave it out, or take a model that was trained to chat"))
    from trainer.generation.chat import ChatTemplate

    return opened.words, ChatTemplate(opened.words.template, opened.words.special)


def _told(opened: Opened, texts: Sequence[str]) -> list[str]:
    """Rank 0's texts, on every rank: the others have no standard input."""
    found: list[str] = json.loads(opened.host.gather(json.dumps(list(texts)).encode())[0])
    return found


def _encoded(text: str, words: Words, template: ChatTemplate | None, system: str | None) -> list[int]:
    """A prompt's ids; in a chat it is what a user says."""
    if template is None:
        return words.encode(text)
    return words.encode(template([*_system(system), {"role": "user", "content": text}]), special=False)


def _system(text: str | None) -> list[dict[str, str]]:
    return [] if text is None else [{"role": "system", "content": text}]


def _answer_all(opened: Opened, texts: Sequence[str], prompts: Sequence[list[int]], asked: Asked) -> None:
    from trainer.generation.generate import generate as continued
    from trainer.generation.generate import refuse_prompts

    refuse_prompts(opened, prompts)  # all of them, before the first is answered
    alone = len(prompts) == 1 and not asked.json
    quiet = opened.host.rank > 0
    for start in range(0, len(prompts), asked.batch):
        batch, began = prompts[start : start + asked.batch], time.perf_counter()
        show = _write if alone and not quiet else None
        answers = continued(opened, batch, asked.sampling, asked.limits, show, first=start)
        if quiet:
            continue
        for number, answer in enumerate(answers, start):
            _print(texts[number], number, answer, asked, alone)
        _report(answers, time.perf_counter() - began, asked)


def _write(row: int, text: str) -> None:
    print(text, end="", flush=True)


def _print(prompt: str, number: int, answer: Answer, asked: Asked, alone: bool) -> None:
    if asked.json:
        told = {"prompt": prompt, "text": answer.text, "tokens": answer.tokens, "ended": answer.ended}
        print(json.dumps(told, ensure_ascii=False), flush=True)
    elif alone:
        print(flush=True)
    else:
        print(f"--- {number + 1}: {prompt}\n{answer.text}", flush=True)


def _report(answers: Sequence[Answer], seconds: float, asked: Asked) -> None:
    """For people, beside the text."""
    count = sum(len(answer.tokens) for answer in answers)
    why = "; ".join(dict.fromkeys(ENDED[answer.ended] for answer in answers))
    never = ", no stop string came" if asked.limits.stop and all(one.ended != "stop" for one in answers) else ""
    print(f"({count:,} tokens in {seconds:.1f} s, {count / seconds:.1f}/s; {why}{never})", file=sys.stderr, flush=True)


def _talk(opened: Opened, words: Words, template: ChatTemplate, asked: Asked) -> None:
    """A conversation: what standard input says, line by line, until it ends."""
    from trainer.generation.generate import generate as continued

    messages = _system(asked.system)
    quiet, turn = opened.host.rank > 0, 0
    if not quiet:
        print("a line at a time; Ctrl-D ends the conversation", file=sys.stderr)
    while True:
        said = _told(opened, [] if quiet else read_line())
        if not said:
            return
        messages.append({"role": "user", "content": said[0]})
        prompt = words.encode(template(messages), special=False)
        show = None if quiet else _write
        (answer,) = continued(opened, [prompt], asked.sampling, asked.limits, show, first=turn)
        messages.append({"role": "assistant", "content": answer.text})
        turn += 1
        if not quiet:
            print(flush=True)
