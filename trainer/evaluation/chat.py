"""Loss over what the assistant says in conversations, and over nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config.groups.data import DataConfig
from trainer.data.chat.conversation import conversed
from trainer.data.chat.sources import chat_of
from trainer.data.progress import Report, track
from trainer.data.skipped import Policy, Skipped
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load
from trainer.errors import ConfigError, DataError, Problem
from trainer.evaluation.chat_files import CHAT, Chats, Rendering
from trainer.evaluation.options import in_options, spelt
from trainer.evaluation.scoring import Row, score
from trainer.evaluation.text import perplexity_of, windows
from trainer.generation.opened import Opened


@dataclass(frozen=True)
class ChatResult:
    """Of one --chat. conversations: those that were scored, each alone. tokens: of them. targets: those that count.

    loss: nats a target. skipped: rows that were passed over; reasons: why, and where. rendering: shape, template,
    train_on, and the digest of all that decides tokens and targets but the tokenizer. described: the same, for people.
    digest: of the conversations that were read.
    """

    name: str
    files: int
    conversations: int
    tokens: int
    targets: int
    windows: int
    seq_len: int
    stride: int
    loss: float
    perplexity: float
    skipped: int
    reasons: Skipped
    rendering: dict[str, Any]
    described: str
    seconds: float
    digest: str


@dataclass(frozen=True)
class Spoken:
    """Conversations as ids, and which of these count; the first of each never does: nothing stands before it."""

    chats: Chats
    conversations: list[tuple[list[int], list[bool]]]
    skipped: Skipped
    rendering: dict[str, Any]
    described: str
    seconds: float


def tokenizer_of(opened: Opened) -> Tokenizer:
    """Of the model, as training has it: text that spells a special token stays text. Raises ConfigError."""
    assert opened.source.tokenizer is not None, "there are words"
    try:
        return load(opened.source.tokenizer, Path(DataConfig.cache_dir))[0]
    except DataError as error:
        rule = f"has a tokenizer that says what ends a text; {error.problems[0].rule}"
        remedy = "say eos_token in the tokenizer_config.json beside its tokenizer.json"
        raise ConfigError(Problem("MODEL", opened.source.given, rule, remedy)) from None


def spoken(chats: Chats, by: Rendering, tokenizer: Tokenizer, report: Report | None = None) -> Spoken:
    """Raises ConfigError for a template that is missing or does not do what templates do, DataError for rows."""
    start = time.perf_counter()
    policy = Policy(by.bad_documents)
    with in_options(CHAT, chats.name):
        found = chat_of(chats.source, by.as_data(), tokenizer)
        assert found is not None, "a source of conversations"
        chat, settings = found
        every: list[tuple[list[int], list[bool]]] = []
        with track(f"{chats.name}: tokenising", len(chats.documents), report, "conversations") as advance:
            for _, ids, trained, _ in conversed(
                chats.documents, chat, lambda bad: policy.take(chats.source, bad, chats.root)
            ):
                assert trained is not None, "conversations say what counts"
                every.append((ids.tolist(), [False, *trained[1:].tolist()]))
                advance(1)
        if not every:
            raise policy.nothing(chats.source)
    if not any(any(counted) for _, counted in every):
        rule = "has a conversation with a token to score and one before it"
        raise DataError(Problem(CHAT, chats.name, rule, "name longer conversations"))
    skipped = Skipped.joined([chats.skipped, policy.skipped])
    seconds = time.perf_counter() - start
    return Spoken(chats, every, skipped, settings.described(), spelt(chat.described()), seconds)


def spoken_windows(ids: Sequence[int], counted: Sequence[bool], seq_len: int, stride: int) -> Iterator[Row]:
    """Those of ``windows`` that have a target which counts. counted: of all ids, [n]; each is so in one window."""
    begin = 1
    for row in windows(ids, seq_len, stride):
        own = counted[begin : begin + row.targets]
        begin += row.targets
        if any(own):
            yield row._replace(counted=own)


def score_chat(
    opened: Opened, said: Spoken, seq_len: int, stride: int, batch: int = 8, report: Report | None = None
) -> ChatResult:
    """Collective. report: told how far it is."""
    start = time.perf_counter()
    chats = said.chats
    rows = [row for one in said.conversations for row in spoken_windows(*one, seq_len, stride)]
    scores = score(opened, rows, batch, chats.name, report)
    targets = sum(one.targets for one in scores)
    loss = math.fsum(one.nats for one in scores) / targets
    return ChatResult(
        name=chats.name,
        files=chats.files,
        conversations=len(said.conversations),
        tokens=sum(len(ids) for ids, _ in said.conversations),
        targets=targets,
        windows=len(rows),
        seq_len=seq_len,
        stride=stride,
        loss=loss,
        perplexity=perplexity_of(loss),
        skipped=sum(count.number for count in said.skipped.bad.values()),
        reasons=said.skipped,
        rendering=said.rendering,
        described=said.described,
        seconds=said.seconds + time.perf_counter() - start,
        digest=chats.digest,
    )
