"""Token files that others have made, opened where they are: checked at drawn places, split by ranges, never copied."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.config.groups.data import SourceConfig
from trainer.config.homes import expanded
from trainer.data.heldout import COUNTED, spoken_bytes
from trainer.data.permutation import drawn_places
from trainer.data.progress import Report
from trainer.data.ranges import heldout_ranges
from trainer.data.shard import PLACES, IndexedShard
from trainer.data.stream import TokenStream, refuse_other_ids
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizing import Part, SourceFigures, compressed

BLOCK = 4096
"""Bytes of a .bin that are looked at together."""
SOURCE_PLACES = 256
"""Places that are looked at in all shards of a source together, once it has so many that each gets fewer."""
LEAST_PLACES = 2
ENDS = 64
"""Documents whose last token is looked at."""
REFERENCE_DOCUMENTS, REFERENCE_BYTES = 250, 1 << 18
"""Compressors are tried on so much of the held-out text: a start waits for them, and xz takes 1 ms a document."""
SPARE_FILES = 256


@dataclass(frozen=True)
class Opened:
    """A source that can be read.

    shards: fingerprints of what was opened in place, by words. mark: the source's own, where opening it tells one.
    estimated: whether the bytes of its training text are. chat: words about conversations; empty of plain text.
    """

    train: TokenStream
    heldout: TokenStream
    figures: SourceFigures
    shards: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    estimated: bool = False
    chat: str = ""


def open_in_place(
    source: SourceConfig, tokenizer: Tokenizer, fraction: float, most_heldout: int, report: Report | None
) -> Opened:
    """Open a source of kind indexed; its shards are one stream. What it costs does not depend on their sizes.

    fraction, most_heldout: data.heldout_fraction and data.heldout_documents. report: where lines go; without one
    the compressors are not tried either. Raises DataError.
    """
    key = f"data.sources[{source.name}].paths"
    allow_files(3 * len(source.paths))
    places = places_in(len(source.paths))
    shards = [IndexedShard(expanded(path), key, places) for path in source.paths]
    looked = [looked_at(shard, tokenizer, places) for shard in shards]
    tokens_seen, bytes_seen = sum(one[1] for one in looked), sum(one[2] for one in looked)
    stream = TokenStream.over(shards, tokenizer.size)
    held = heldout_ranges(stream, fraction, most_heldout)
    train, heldout = stream.without(held), stream.only(held)
    figures = SourceFigures(
        Part(train.documents, train.total, _share(bytes_seen, train.total, tokens_seen)),
        Part(heldout.documents, heldout.total, spoken_bytes(heldout, tokenizer)),
        *(_references(heldout, tokenizer) if report is not None else (0, 0, 0)),
    )
    for line in [*_said_of_ends(source, stream, tokenizer), *_said_of_heldout(source, heldout, held)]:
        if report is not None:
            report(line)
    marks = {f"shard {number} of source {source.name}": one[0] for number, one in enumerate(looked)}
    return Opened(train, heldout, figures, marks, estimated=True)


def places_in(shards: int) -> int:
    """How many places of each shard are looked at, of so many in a source."""
    return max(LEAST_PLACES, min(PLACES, SOURCE_PLACES // max(1, shards)))


def looked_at(shard: IndexedShard, tokenizer: Tokenizer, places: int) -> tuple[str, int, int]:
    """Fingerprint of a shard, by blocks at drawn places; tokens and bytes of text in these. Raises DataError."""
    digest = hashlib.blake2b(shard.digest.encode(), digest_size=16)
    tokens = size = 0
    for offset, ids in _blocks(shard, places):
        refuse_other_ids(shard, offset, ids, tokenizer.size)
        digest.update(ids.tobytes())
        if shard.masked:
            digest.update(shard.trained(offset, offset + len(ids)).tobytes())
        tokens, size = tokens + len(ids), size + int(tokenizer.token_sizes[ids].sum())
    return digest.hexdigest(), tokens, size


def _blocks(shard: IndexedShard, places: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Tokens at drawn places of a shard, each with the offset of the first."""
    tokens = BLOCK // shard.dtype.itemsize
    for block in drawn_places(-(-shard.total // tokens), places, shard.total, shard.documents):
        yield block * tokens, shard.tokens(block * tokens, min(shard.total, (block + 1) * tokens))


def _share(counted: int, tokens: int, of: int) -> int:
    """Bytes of so many tokens, when `of` tokens have `counted`."""
    return counted * tokens // of if of else 0


def _references(heldout: TokenStream, tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Bytes of the first held-out documents, and what zlib and xz make of each."""
    total = np.zeros(3, np.int64)
    for index in range(min(heldout.documents, REFERENCE_DOCUMENTS)):
        start, stop = (heldout.start_of(edge) for edge in (index, index + 1))
        text = b"".join(tokenizer.token_bytes[token] for token in heldout.slice(start, min(stop, start + COUNTED)))
        total += compressed(text) if text else (0, 0, 0)
        if total[0] >= REFERENCE_BYTES:
            break
    return int(total[0]), int(total[1]), int(total[2])


def _said_of_ends(source: SourceConfig, stream: TokenStream, tokenizer: Tokenizer) -> Iterator[str]:
    """A warning where documents do not end with the tokenizer's end of document, by some that are drawn."""
    looked = ended = 0
    for index in drawn_places(stream.documents, ENDS, stream.total):
        if stream.start_of(index) < (stop := stream.start_of(index + 1)):
            looked += 1
            ended += int(stream.slice(stop - 1, stop)[0]) == tokenizer.eod
    if ended == looked:
        return
    share = f"{ended} of {looked} drawn documents end" if ended else f"none of {looked} drawn documents ends"
    unseen = "the others do not show the model where they end" if ended else "the model will not see where one ends"
    yield (
        f"warning: source {source.name}: {share} with {tokenizer.eod_token} (id {tokenizer.eod}): {unseen};"
        " attention and targets stay inside a document all the same"
    )


def _said_of_heldout(source: SourceConfig, heldout: TokenStream, held: Sequence[tuple[int, int]]) -> Iterator[str]:
    if held:
        ranges = f"{len(held)} range{'s' if len(held) > 1 else ''}"
        yield (
            f"held-out of {source.name}: {heldout.documents:,} documents in {ranges}; token files that are ready are"
            " not split by content, so duplicates of these may be among the others"
        )


def allow_files(wanted: int) -> None:
    """Raise this process's own limit of open files where it is too low: a map keeps its file open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + SPARE_FILES:
        most = wanted + SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + SPARE_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
