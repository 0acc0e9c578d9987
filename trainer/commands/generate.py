"""scripts/generate.py: prompts from the command line or standard input, answers to standard output."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.backends.common.meeting import Meeting
from trainer.commands.launched import explained, refuse_other_options
from trainer.commands.prompts import not_text, read_line, read_prompts
from trainer.errors import ConfigError, DataError, Problem
from trainer.generation.settings import Limits, Sampling
from trainer.run.output import lost_output
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.data.chat.template import Message
    from trainer.generation.generate import Answer
    from trainer.generation.opened import Opened

    Encode = Callable[[Sequence[Message]], list[int]]

ENDED = {
    "end": "the model ended the text",
    "stop": "a stop string came",
    "tokens": "as many tokens as asked for",
    "window": "the model's window is full",
    "broken": "the model gives no finite logits",
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
    base: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Asked:
        """From parsed arguments. Raises ConfigError with every mistake in them; imports no torch."""
        sampling = Sampling(**{one.name: options[one.name] for one in fields(Sampling)})
        limits = Limits(options["tokens"], tuple(options["stop"] or ()))
        own = {name: options[name] for name in ("model", "lines", "chat", "system", "batch", "dtype", "json", "base")}
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
        if not self.model:
            yield Problem("MODEL", "", "names a run, a checkpoint or a directory", "write its path")
        if self.batch < 1:
            yield Problem("--batch", self.batch, "1 or more", "give one, or leave it out")
        if self.lines and self.prompts:
            rule = "says how standard input is read; --prompt gives the prompts"
            yield Problem("--lines", True, rule, "leave one of them out")
        if self.system is not None and not self.chat:
            yield Problem("--system", self.system, "is a part of a chat", "add --chat, or put it into the prompt")
        if self.talks and self.json:
            yield Problem("--json", True, "is for prompts, not for a conversation", "give --prompt or --lines")
        for key, texts in (("--system", [self.system or ""]), ("--stop", self.limits.stop)):
            for text in texts:
                yield from not_text(key, text)

    def settings(self) -> dict[str, Any]:
        """What all ranks of a launch have to be asked alike, by the options' names."""
        own = ("lines", "chat", "system", "batch", "dtype", "json")
        limits = {"tokens": self.limits.new_tokens, "stop": self.limits.stop}
        return asdict(self.sampling) | limits | {name: getattr(self, name) for name in own}


def generate(asked: Asked, world: World) -> None:
    """Open the model on every rank; rank 0 reads and prints. Raises ConfigError and DataError."""
    meeting = Meeting.join(world)
    # However long somebody types.
    texts = meeting.each(lambda: _typed(asked) if world.rank == 0 else [], seconds=math.inf)
    refuse_other_options(meeting, asked.settings())
    from trainer.generation.fast import quicken  # brings torch
    from trainer.generation.opened import opened_model

    less = "a smaller --batch, fewer --tokens, a smaller model"
    with explained(world.rank, less), opened_model(asked.model, asked.dtype, world, meeting, asked.base) as opened:
        encode = meeting.each(partial(_encoder, opened, asked))
        quicken(opened)
        if asked.talks:
            _talk(opened, meeting, encode, asked)
            return
        # Rank 0's: a template may say another time of day elsewhere.
        prompts = meeting.first(lambda: [encode([*_system(asked), _user(text)]) for text in texts])
        _answer_all(opened, texts, prompts, asked)


def _typed(asked: Asked) -> list[str]:
    """The prompts as the user wrote them; none of a conversation, which is read line by line."""
    texts = [*asked.prompts] if asked.prompts or asked.talks else list(read_prompts(asked.lines))
    if problems := [one for number, text in enumerate(texts, 1) for one in not_text(f"prompt {number}", text)]:
        raise DataError(problems)
    return texts


def _encoder(opened: Opened, asked: Asked) -> Encode:
    """From messages to ids: by the chat template, or what the last of them says as it stands."""
    words = opened.words
    if words is None:
        rule = "has a tokenizer (tokenizer.json); a run keeps one where its text was tokenised by a file"
        raise ConfigError(Problem("MODEL", asked.model, rule, "save the model's fast tokenizer there"))
    if not asked.chat:
        return lambda messages: words.encode(messages[-1]["content"])
    if words.template is None:
        rule = "the tokenizer has a chat template (chat_template.jinja); this one has none"
        raise ConfigError(Problem("--chat", True, rule, "leave it out, or take a model that was trained to chat"))
    from trainer.data.chat.template import ChatTemplate

    template = ChatTemplate(words.template, words.special)
    return lambda messages: words.encode(template(messages), special=False)


def _system(asked: Asked) -> list[Message]:
    return [] if asked.system is None else [{"role": "system", "content": asked.system}]


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _answer_all(opened: Opened, texts: Sequence[str], prompts: Sequence[list[int]], asked: Asked) -> None:
    from trainer.generation.generate import generate as continued
    from trainer.generation.generate import refuse_prompts

    refuse_prompts(opened, prompts)  # all of them, before the first is answered
    alone = len(prompts) == 1 and not asked.json
    quiet = opened.host.rank > 0
    for start in range(0, len(prompts), asked.batch):
        if opened.host.broadcast(int(lost_output() is not None)):
            return  # nobody reads on, or the disk is full
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


def _talk(opened: Opened, meeting: Meeting, encode: Encode, asked: Asked) -> None:
    """A conversation: what standard input says, line by line, until it ends."""
    from trainer.generation.generate import generate as continued

    quiet = opened.host.rank > 0
    if not quiet:
        print("a line at a time; Ctrl-D ends the conversation", file=sys.stderr)
    messages = _system(asked)

    def listen() -> list[int] | None:
        for line in read_line():
            messages.append(_user(line))
            return encode(messages)
        return None

    for turn in itertools.count():
        # However long somebody thinks: not in a collective, which has a timeout.
        if (prompt := meeting.first(listen, seconds=math.inf)) is None:
            return
        show = None if quiet else _write
        (answer,) = continued(opened, [prompt], asked.sampling, asked.limits, show, first=turn)
        messages.append({"role": "assistant", "content": answer.text})
        if not quiet:
            print(flush=True)
