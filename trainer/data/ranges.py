"""Which documents of a foreign corpus are held out: a bounded number, in a bounded number of ranges."""

from __future__ import annotations

from bisect import bisect_right

from trainer.data.permutation import seed_from
from trainer.data.stream import TokenStream

RANGES = 16
TOKENS = 1 << 20
"""Held-out tokens are read at every start; an evaluation scores fewer (evaluation.windows)."""


def heldout_ranges(stream: TokenStream, fraction: float, most: int) -> list[tuple[int, int]]:
    """Documents first .. last - 1 for each (first, last), rising.

    At most `fraction` of the documents, `most` of them and about TOKENS tokens; at least one, of a stream of two or
    more. One range lies in each of up to RANGES equal parts of the stream, at a place drawn by the stream's size: runs
    with other seeds are scored on the same text.
    """
    count = min(most, int(fraction * stream.documents))
    if fraction > 0 and most > 0 and stream.documents > 1:
        count = max(1, count)
    parts = min(RANGES, count)
    found, left = [], TOKENS
    # In a drawn order: where documents are so long that few ranges fit, these are not the first ones.
    order = sorted(range(parts), key=lambda part: seed_from(stream.documents, stream.total, part))
    for done, part in enumerate(order):
        low, high = (stream.documents * edge // parts for edge in (part, part + 1))
        wanted = count * (part + 1) // parts - count * part // parts
        first = low + seed_from(stream.documents, part, stream.total) % (high - low - wanted + 1)
        begin, share = stream.start_of(first), left // (parts - done)
        ends = range(first + 2, first + wanted + 1)  # the first document is taken whatever its length
        last = first + 1 + bisect_right(ends, begin + share, key=stream.start_of)
        found.append((first, last))
        left -= stream.start_of(last) - begin
        if left <= 0:
            break
    return sorted(found)
