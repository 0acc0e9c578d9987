"""Do chunks cover a tensor exactly once? The answers against counting every element, which is slow and obvious."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.checkpoint.index import Stored
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tiling import covered_once, grid

Chunks = list[tuple[list[int], list[int]]]


def counted(shape: tuple[int, ...], chunks: Chunks) -> bool:
    """Paint every chunk; each element has to be painted once."""
    painted = np.zeros(shape, dtype=int)
    for offsets, sizes in chunks:
        if any(o < 0 or n < 1 or o + n > extent for o, n, extent in zip(offsets, sizes, shape, strict=True)):
            return False
        painted[tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))] += 1
    return bool((painted == 1).all())


def table(shape: tuple[int, ...], chunks: Chunks) -> list[np.ndarray]:
    return [np.array([chunk[i] for chunk in chunks], dtype=np.int64).reshape(len(chunks), len(shape)) for i in (0, 1)]


def halved(random: np.random.Generator, offsets: list[int], sizes: list[int], depth: int) -> Chunks:
    """A tiling that is no grid: a box cut in two along any dim, and each half again."""
    dims = [dim for dim, size in enumerate(sizes) if size > 1]
    if not depth or not dims:
        return [(offsets, sizes)]
    dim = int(random.choice(dims))
    at = int(random.integers(1, sizes[dim]))
    found = []
    for begin, size in ((0, at), (at, sizes[dim] - at)):
        o, n = list(offsets), list(sizes)
        o[dim], n[dim] = o[dim] + begin, size
        found += halved(random, o, n, depth - 1)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_tilings_of_any_kind_pass_and_disturbed_ones_do_not(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(10):
        shape = tuple(random.integers(1, 7, random.integers(0, 4)).tolist())
        chunks = halved(random, [0] * len(shape), list(shape), int(random.integers(0, 5)))
        assert counted(shape, chunks)
        assert covered_once(shape, *table(shape, chunks))
        for _ in range(10):
            other = [(list(o), list(n)) for o, n in chunks]
            kind, which = random.integers(0, 4), int(random.integers(0, len(chunks)))
            if kind == 0:
                other.pop(which)
            elif kind == 1:
                other.append(other[which])
            elif shape:
                other[which][kind - 2][int(random.integers(0, len(shape)))] += int(random.choice([-1, 1]))
            assert covered_once(shape, *table(shape, other)) == counted(shape, other), (shape, other)
            if grid(shape, *table(shape, other)) is not None:
                assert counted(shape, other), (shape, other)


def test_volumes_that_add_up_are_no_proof() -> None:
    """Two chunks on top of each other and a hole of the same size."""
    chunks: Chunks = [([0, 0], [2, 2]), ([0, 0], [2, 2]), ([2, 0], [2, 4])]
    assert sum(np.prod(sizes) for _, sizes in chunks) == 16
    assert not covered_once((4, 4), *table((4, 4), chunks))
    pinwheel: Chunks = [([0, 0], [1, 2]), ([0, 2], [2, 1]), ([2, 1], [1, 2]), ([1, 0], [2, 1]), ([1, 1], [1, 1])]
    assert covered_once((3, 3), *table((3, 3), pinwheel)), "a tiling that no cut through the whole can make"
    assert grid((3, 3), *table((3, 3), pinwheel)) is None


def test_a_grid_comes_back_in_any_order_of_its_chunks() -> None:
    cells: Chunks = [([r, c], [n, m]) for r, n in ((0, 3), (3, 1), (4, 2)) for c, m in ((0, 2), (2, 5))]
    offsets, sizes = table((6, 7), cells)
    shuffled = np.random.default_rng(0).permutation(6)
    stored = Stored.of("float32", (6, 7), shuffled.astype(np.int32), offsets[shuffled], sizes[shuffled])
    assert stored.cuts is not None
    assert [cut.tolist() for cut in stored.cuts] == [[0, 3, 4], [0, 2]]
    assert stored.ranks.tolist() == [0, 1, 2, 3, 4, 5], "chunk i was rank i's"
    for made, wanted in zip(stored.chunks(), (offsets, sizes), strict=True):
        assert (made == wanted).all()


def test_nothing_covers_only_nothing() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    assert covered_once((0, 5), none, none)
    assert not covered_once((1, 5), none, none)
    with pytest.raises(Unsound, match="larger than anything"):
        covered_once((2**40, 2**40), none, none)
