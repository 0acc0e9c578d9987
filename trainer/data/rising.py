"""Searching a rising table of 1e9 entries that lies on a disk: few pages are read, none of them twice."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from trainer.data.pieces import Table

Rising = NDArray[np.int64] | Table
"""int64, rising; equal neighbours are allowed."""
WINDOW = 256
"""Entries on either side of a guess that are looked at together: 4 KiB."""


def first_above(table: Rising, value: int, last: int) -> int:
    """Index of the first entry above `value`; len(table) if there is none. last: about what the last entry is.

    Guesses by interpolation, which finds a place among evenly spread entries in two or three windows whatever their
    number; every fourth guess halves what is left, so that no table takes more than four times a binary search's.
    """
    low, high, floor, ceiling = 0, len(table), 0, last
    for turn in itertools.count(1):
        if high - low <= 2 * WINDOW:
            break
        even = turn % 4 and floor <= value < ceiling
        share = (value - floor) / (ceiling - floor) if even else 0.5
        middle = min(max(low + int(share * (high - low)), low + WINDOW), high - WINDOW)
        window = table[middle - WINDOW : middle + WINDOW]
        place = int(np.searchsorted(window, value, side="right"))
        if 0 < place < len(window):
            return middle - WINDOW + place
        if place:
            low, floor = middle + WINDOW, int(window[-1])
        else:
            high, ceiling = middle - WINDOW, int(window[0])
    return low + int(np.searchsorted(table[low:high], value, side="right"))


def between(table: Rising, low: int, high: int, last: int) -> tuple[int, NDArray[np.int64]]:
    """Index of the first entry above `low`, and the entries above `low` up to `high`, in memory."""
    first = first_above(table, low, last)
    runs = []
    for start in range(first, len(table), 2 * WINDOW):
        run = table[start : start + 2 * WINDOW]
        inside = int(np.searchsorted(run, high, side="right"))
        runs.append(run[:inside])
        if inside < len(run):
            break
    return first, np.concatenate(runs) if runs else np.zeros(0, np.int64)
