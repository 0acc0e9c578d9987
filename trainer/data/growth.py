"""Text that was appended to a source since a checkpoint: told from text that became another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer.data.corpus import Corpus, source_key
from trainer.data.cursor import Cursor
from trainer.data.prepared import manifests_extend
from trainer.data.stream import TokenStream
from trainer.data.tokenizing import TRAIN
from trainer.errors import DataError

BLOCK = 1 << 22
"""Tokens compared at a time."""


def appended(corpus: Corpus, before: Mapping[str, str], cache_dir: str) -> list[bool]:
    """For each source, whether its tokens are those of the checkpoint with more behind them, or the same.

    before: fingerprints of the checkpoint. What it was trained on is looked for in the cache: where that is gone,
    nothing can be told, and the answer is no.
    """
    cache = Path(cache_dir).expanduser()
    found = []
    for name, tokens in zip(corpus.names, corpus.train, strict=True):
        key = source_key(name)
        old, new = before.get(key), corpus.fingerprints[key]
        more = old is not None and (manifests_extend(old, new) or _begins_with(tokens, cache / old))
        found.append(old == new or more)
    return found


def adapted(cursor: Cursor, corpus: Corpus, grown: list[bool]) -> tuple[Cursor, list[str]]:
    """The cursor for the text that there is now, and a line about each source whose text is another.

    grown: of each source, as ``appended`` says it (rank 0's word).
    """
    lines = []
    for name, tokens, same in zip(corpus.names, corpus.train, grown, strict=True):
        if name not in cursor.segments:
            continue  # the order refuses a cursor that knows other sources
        more = tokens.total - sum(part.tokens for part in cursor.segments[name])
        if not same:
            cursor = cursor.replaced(name, tokens.total)
            lines.append(f"{name} is another text now: what was read of the earlier one counts as read of this one")
        elif more:
            cursor = cursor.grown(name, more)
            lines.append(f"{name} has {more:,} tokens more: they are read once before this epoch of it ends")
    return cursor, lines


def _begins_with(tokens: TokenStream, old: Path) -> bool:
    try:
        former = TokenStream.open(old / TRAIN)
    except DataError:
        return False
    if former.total > tokens.total:
        return False
    bounds = range(0, former.total, BLOCK)
    return all(
        np.array_equal(former.slice(at, at + BLOCK), tokens.slice(at, min(at + BLOCK, former.total))) for at in bounds
    )
