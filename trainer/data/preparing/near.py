"""Documents of nearly equal text, by MinHash over runs of five words.

Words are what stands between blanks, in lower case. Of each document 128 minima are kept, of which two documents share
about as large a part as of all runs of five words that either has (their Jaccard index). Candidates are documents that
agree in all minima of a band; bands are as long as lets 95 % of the pairs at the threshold be candidates. Of those, a
document is dropped whose minima agree with an earlier one's in a share of the threshold or more, be that one dropped
itself or not: so what is dropped does not depend on the order in which buckets are looked through. In a band a document
is compared with the first COMPARED that agree, since a page of which there are a million copies would take a billion
comparisons otherwise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparing.exact import PLACE, Rows, places

MINIMA, WORDS = 128, 5
RECALL = 0.95
COMPARED = 8
KEY = 8
"""Bytes of a band's hash."""
WIDTH = KEY + PLACE
AT_ONCE = 4096
"""Runs of words of which minima are taken at once."""
Signature = NDArray[np.uint32]


def band_length(threshold: float) -> int:
    """Minima of a band: the more, the fewer candidates."""
    found = [r for r in range(1, MINIMA) if 1 - (1 - threshold**r) ** (MINIMA // r) >= RECALL]
    return max(found, default=1)


class MinHash:
    """Takes the minima of texts. The same numbers in every process."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0x5EED)
        self._factors = draw.integers(0, 1 << 64, MINIMA, np.uint64) | np.uint64(1)
        self._terms = draw.integers(0, 1 << 64, MINIMA, np.uint64)
        self._powers = draw.integers(0, 1 << 64, WORDS, np.uint64) | np.uint64(1)

    def __call__(self, text: str) -> Signature:
        """The minima of a text, [MINIMA]."""
        words = np.array([_word(word) for word in text.lower().split()], np.uint64)
        count = max(1, len(words) - WORDS + 1)
        runs = np.zeros(count, np.uint64)
        for index, power in enumerate(self._powers[: len(words)]):
            runs += words[index : index + count] * power
        runs = np.unique(runs)
        runs ^= runs >> np.uint64(29)
        runs *= np.uint64(0xBF58476D1CE4E5B9)
        runs ^= runs >> np.uint64(32)
        least = np.full(MINIMA, np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(runs), AT_ONCE):
            mixed = runs[start : start + AT_ONCE, None] * self._factors + self._terms
            np.minimum(least, mixed.min(axis=0), out=least)
        return (least >> np.uint64(32)).astype(np.uint32)


@lru_cache(1 << 16)
def _word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def hashed(texts: Iterable[str], buckets: int, threshold: float, signatures: Path) -> tuple[NDArray[np.int64], Rows]:
    """The bucket of each band of each document, and its row: hash, place. The minima go to a file of their own."""
    minima, length = MinHash(), band_length(threshold)
    keys: list[bytes] = []
    count = 0
    signatures.parent.mkdir(parents=True, exist_ok=True)
    with open(signatures, "wb") as file:
        for text in texts:
            found = minima(text).astype("<u4").tobytes()
            file.write(found)
            count += 1
            for band in range(MINIMA // length):
                part = found[band * length * 4 : (band + 1) * length * 4]
                keys.append(hashlib.blake2b(part, digest_size=KEY, salt=band.to_bytes(2, "little")).digest())
        file.flush()
        os.fsync(file.fileno())
    bands = MINIMA // length
    found_keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
    groups = np.ascontiguousarray(found_keys[:, :2]).view(">u2")[:, 0].astype(np.int64) % buckets
    return groups, np.concatenate([found_keys, places(np.repeat(np.arange(count), bands))], axis=1)


def near(rows: Rows, units: NDArray[np.int64], signatures: Sequence[Path], threshold: float) -> NDArray[np.int64]:
    """Which of the rows are of documents near an earlier one that they share a band with. units: of each row."""
    keys = np.ascontiguousarray(rows[:, :KEY]).view("<u8")[:, 0]
    found = np.ascontiguousarray(rows[:, KEY:]).view("<u4")[:, 0]
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    minima = _Minima(signatures)
    dropped = []
    for at in np.flatnonzero(~starts).tolist():
        row = int(order[at])
        mine = minima(int(units[row]), int(found[row]))
        for other in order[first[at] : min(at, first[at] + COMPARED)].tolist():
            if (mine == minima(int(units[other]), int(found[other]))).mean() >= threshold:
                dropped.append(row)
                break
    return np.array(sorted(dropped), np.int64)


class _Minima:
    """Of any document of any unit."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._opened: dict[int, NDArray[np.uint32]] = {}

    def __call__(self, unit: int, place: int) -> NDArray[np.uint32]:
        if unit not in self._opened:
            if len(self._opened) == 256:  # files, and their addresses
                self._opened.pop(next(iter(self._opened)))
            self._opened[unit] = np.memmap(self._paths[unit], "<u4", "r").reshape(-1, MINIMA)
        return self._opened[unit][place]
