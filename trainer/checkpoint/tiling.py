"""Do chunks cover a tensor exactly once? Proofs in linear time, but for sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.checkpoint.strict_json import LARGEST, Unsound

Ints = NDArray[np.integer]


def grid(shape: Sequence[int], offsets: Ints, sizes: Ints) -> tuple[list[Ints], Ints] | None:
    """Where chunks [n, dims] cut each dim, and the chunk of each cell in row-major order, if they are cells of a grid.

    Then they cover the tensor exactly once: as many chunks as cells, no cell twice, each of its cell's size. None for
    any other chunks. Layouts cut dims independently of each other, so that theirs are grids.
    """
    if not len(offsets):
        return None
    cuts, cell, cells = [], np.zeros(len(offsets), dtype=np.int64), 1
    for dim, extent in enumerate(shape):
        starts, position = np.unique(offsets[:, dim], return_inverse=True)
        extents = np.diff(np.append(starts, extent))
        cells *= len(starts)
        if cells > len(offsets) or starts[0] != 0 or (sizes[:, dim] != extents[position]).any() or extents.min() < 1:
            return None
        cell = cell * len(starts) + position
        cuts.append(starts)
    if cells != len(offsets):
        return None
    order = np.argsort(cell, kind="stable")
    return (cuts, order) if (cell[order] == np.arange(cells)).all() else None


def covered_once(shape: Sequence[int], offsets: Ints, sizes: Ints) -> bool:
    """Whether chunks [n, dims] of any arrangement cover a tensor exactly once.

    A chunk counts 1 inside and 0 outside. The mixed difference of that function along all dims is +1 or -1 at the
    chunk's corners and 0 elsewhere, and summing along all dims gives the function back. So chunks add up to the whole
    tensor exactly when their signed corners add up to those of the whole. Raises Unsound for more than 2^62 corners.
    """
    if math.prod(extent + 1 for extent in shape) >= LARGEST:
        raise Unsound("the tensor is larger than anything that could be stored")
    outside = (offsets < 0).any() or (sizes < 1).any() or (offsets + sizes > np.array(shape, dtype=np.int64)).any()
    if outside or not len(offsets):
        return not outside and 0 in shape
    # The whole tensor, subtracted: everything must cancel.
    lows = np.concatenate([offsets, np.zeros((1, len(shape)), dtype=np.int64)])
    highs = np.concatenate([offsets + sizes, np.array([shape], dtype=np.int64).reshape(1, len(shape))])
    corners, signs = np.zeros(len(lows), dtype=np.int64), np.ones(len(lows), dtype=np.int64)
    signs[-1] = -1
    for dim, extent in enumerate(shape):
        ends = (corners * (extent + 1)).reshape(-1, len(lows))
        corners = np.concatenate([ends + lows[:, dim], ends + highs[:, dim]]).reshape(-1)
        signs = np.concatenate([signs, -signs])
    order = np.argsort(corners, kind="stable")
    corners, signs = corners[order], signs[order]
    first = np.flatnonzero(np.append(True, corners[1:] != corners[:-1]))
    return not np.add.reduceat(signs, first).any()
