"""Rows in groups: a file from which the rows of one group are read without the others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.files import sync, temporary_of


def write_groups(path: Path, groups: NDArray[np.int64], rows: NDArray[np.uint8], count: int) -> None:
    """Write rows, those of a group in their order. groups: [rows], 0 .. count - 1. rows: [rows, bytes].

    The file: int64 ends[count + 1], in rows, the first one 0; then the rows.
    """
    order = np.argsort(groups, kind="stable")
    ends = np.zeros(count + 1, "<i8")
    np.cumsum(np.bincount(groups, minlength=count), out=ends[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    with open(temporary, "wb") as file:
        file.write(ends.tobytes())
        file.write(np.ascontiguousarray(rows[order]).tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def read_group(path: Path, group: int, count: int, width: int) -> NDArray[np.uint8]:
    """The rows of a group, [rows, width]. count: of groups."""
    with open(path, "rb") as file:
        file.seek(group * 8)
        first, end = np.frombuffer(file.read(16), "<i8").tolist()
        file.seek((count + 1) * 8 + first * width)
        content = file.read((end - first) * width)
    return np.frombuffer(content, np.uint8).reshape(end - first, width)
