"""A sample as text: its documents, and what of them is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from trainer.batch import IGNORED_LABEL
from trainer.data.packing import Sample
from trainer.data.tokenizer import Tokenizer

LONGEST = 600
"""Characters of a document, or of a run of a conversation's tokens, that are shown: half its first, half its last."""
UNTRAINED = "\u27e6{}\u27e7"
"""Around text that is read and is no target."""
MARKS = ("[[", "]]")
"""Around what of a conversation is trained on."""
COLOURS = ("\x1b[1;32m", "\x1b[0m")
"""The same, on a terminal: bold and green."""


def first_words(sample: Sample, tokenizer: Tokenizer, characters: int) -> str:
    """The beginning of a sample in one line."""
    used = sample.tokens[: min(characters, int((sample.document_ids >= 0).sum()))]
    text = " ".join(tokenizer.decode(used.tolist()).split())
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def summary(sample: Sample) -> str:
    """Documents, targets and padding of a sample, counted."""
    padding, targets = int((sample.document_ids < 0).sum()), int((sample.labels != IGNORED_LABEL).sum())
    documents = int(sample.document_ids.max()) + 1
    pieces = "document or piece of one" if documents == 1 else "documents or pieces of them"
    return f"{documents} {pieces}, {targets:,} targets, {padding:,} of {len(sample.tokens):,} positions are padding"


def lines(sample: Sample, tokenizer: Tokenizer) -> Iterator[str]:
    """Each document with its border and its text; what is no target stands in brackets."""
    for number in range(int(sample.document_ids.max()) + 1):
        places = np.flatnonzero(sample.document_ids == number)
        first, last = int(places[0]), int(places[-1])
        begins = int(sample.positions[first])
        yield f"    -- document {number}: places {first} - {last}, positions from {begins}"
        text = _cut(_marked(sample, first, last, tokenizer))
        yield from (f"    | {line}" for line in text.splitlines())


def turns(sample: Sample, tokenizer: Tokenizer, around: tuple[str, str] = MARKS) -> Iterator[str]:
    """Each conversation with its border, and its tokens in runs of those that are trained on and those that are read.

    around: put around what is trained on, in each line of it.
    """
    for number in range(int(sample.document_ids.max()) + 1):
        places = np.flatnonzero(sample.document_ids == number)
        runs = _runs(sample, int(places[0]), int(places[-1]))
        count, trained = (sum(len(ids) for kept, ids in runs if kept or every) for every in (True, False))
        begins = int(sample.positions[places[0]])
        yield f"    -- conversation {number}: {count:,} tokens from its token {begins:,} on, {trained:,} trained on"
        for kept, ids in runs:
            lines = _cut(tokenizer.decode(ids)).split("\n")
            if kept:
                lines = [f"{around[0]}{line}{around[1]}" for line in lines]
                lines[-1] += f"  ({len(ids):,} trained on)"
            yield from (f"    | {line}" for line in (lines if lines[-1] else lines[:-1]))


def _marked(sample: Sample, first: int, last: int, tokenizer: Tokenizer) -> str:
    """The tokens of places first .. last and the last one's target, in runs of those that are targets or are none."""
    decoded = ((kept, tokenizer.decode(ids)) for kept, ids in _runs(sample, first, last))
    return "".join(text if kept else UNTRAINED.format(text) for kept, text in decoded)


def _runs(sample: Sample, first: int, last: int) -> list[tuple[bool, list[int]]]:
    """Whether they are targets, and ids."""
    labels = sample.labels[first : last + 1]
    trained = [False, *(labels != IGNORED_LABEL).tolist()]
    following = np.where(labels == IGNORED_LABEL, np.append(sample.tokens[first + 1 : last + 1], 0), labels)
    ids = [int(sample.tokens[first]), *following.tolist()]
    if not trained[-1]:  # the last place has no target of its own
        ids, trained = ids[:-1], trained[:-1]
    runs = groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1])
    return [(kept, [token for token, _ in run]) for kept, run in runs]


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} [... {len(text) - LONGEST:,} characters ...] {text[-half:]}"
