"""Loss, perplexity and bits per byte of texts, in windows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.data.progress import Report, track
from trainer.errors import DataError, Problem
from trainer.evaluation.files import DATA, Texts
from trainer.evaluation.scoring import Row, score
from trainer.generation.opened import Opened
from trainer.generation.words import Words

LARGEST = 700.0
"""A loss beyond which the perplexity is no number."""


@dataclass(frozen=True)
class TextResult:
    """Of one --data. tokens: of all documents; targets: those that are predicted; bytes: UTF-8, of the targets.

    loss: nats a target. bits_per_byte: of all targets together, special tokens included. digest: of the texts.
    """

    name: str
    files: int
    documents: int
    tokens: int
    targets: int
    bytes: int
    windows: int
    seq_len: int
    stride: int
    loss: float
    perplexity: float
    bits_per_byte: float
    seconds: float
    digest: str


def windows(tokens: Sequence[int], seq_len: int, stride: int) -> Iterator[Row]:
    """Each token but the first is a target once, from at most ``seq_len`` tokens before it.

    stride: targets of each window behind the first; at most seq_len, where windows do not overlap.
    """
    last, told = len(tokens) - 1, 0
    for start in range(0, last, stride):
        end = min(start + seq_len, last)
        yield Row(tokens[start : end + 1], end - told)
        told = end
        if end == last:
            return


def encoded(words: Words, text: str) -> tuple[list[int], int]:
    """Ids as transformers' tokenizer gives them, and bytes of all but the first.

    That is BOS, which has none, where the tokenizer begins a text with it; else nothing stands before it to predict it.
    """
    encoding = words.inner.encode(text)
    size = len(text.encode())
    if encoding.ids and not encoding.special_tokens_mask[0]:
        size -= len(text[: encoding.offsets[0][1]].encode())
    return list(encoding.ids), size


def perplexity_of(loss: float) -> float:
    """Infinite where it is no number."""
    return math.inf if loss > LARGEST else math.exp(loss)


def score_text(
    opened: Opened,
    words: Words,
    texts: Texts,
    seq_len: int,
    stride: int,
    batch: int = 8,
    report: Report | None = None,
) -> TextResult:
    """Collective. Raises DataError where no document has two tokens. report: told how far it is."""
    start = time.perf_counter()
    rows: list[Row] = []
    tokens = size = 0
    with track(f"{texts.name}: tokenising", len(texts.documents), report, "documents") as advance:
        for document in texts.documents:
            ids, own = encoded(words, document)
            tokens += len(ids)
            if len(ids) > 1:
                rows += windows(ids, seq_len, stride)
                size += own
            advance(1)
    if not rows or not size:
        rule = "has a document of two tokens: the first predicts the second"
        raise DataError(Problem(DATA, texts.name, rule, "name a longer text"))
    scores = score(opened, rows, batch, texts.name, report)
    nats, targets = math.fsum(one.nats for one in scores), sum(one.targets for one in scores)
    loss = nats / targets
    return TextResult(
        name=texts.name,
        files=texts.files,
        documents=len(texts.documents),
        tokens=tokens,
        targets=targets,
        bytes=size,
        windows=len(rows),
        seq_len=seq_len,
        stride=stride,
        loss=loss,
        perplexity=perplexity_of(loss),
        bits_per_byte=nats / math.log(2) / size,
        seconds=time.perf_counter() - start,
        digest=texts.digest,
    )
