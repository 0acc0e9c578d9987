"""Documents of equal text: 128 bits of each, and of equal ones the first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

HASH, PLACE = 16, 4
"""Bytes of a text's hash, and of its place in its unit."""
WIDTH = HASH + PLACE
Rows = NDArray[np.uint8]


def hashed(contents: Iterable[bytes], buckets: int) -> tuple[NDArray[np.int64], Rows]:
    """The bucket of each document, and its row: hash, place."""
    hashes = bytearray()
    for content in contents:
        hashes += hashlib.blake2b(content, digest_size=HASH).digest()
    found = np.frombuffer(hashes, np.uint8).reshape(-1, HASH)
    groups = np.ascontiguousarray(found[:, :2]).view(">u2")[:, 0].astype(np.int64) % buckets
    return groups, np.concatenate([found, places(np.arange(len(found)))], axis=1)


def places(numbers: NDArray[np.integer]) -> Rows:
    """As bytes of rows."""
    return numbers.astype("<u4").view(np.uint8).reshape(-1, PLACE)


def repeated(rows: Rows) -> NDArray[np.int64]:
    """Which of the rows have a hash that an earlier one has."""
    high, low = np.ascontiguousarray(rows[:, :HASH]).view("<u8").T
    order = np.lexsort((low, high))  # stable: equal ones stay in the order of units and documents
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    return np.sort(order[1:][same])
