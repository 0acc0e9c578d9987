"""What dropout draws by: a key for each position of a training sample, whatever rank or microbatch it falls to."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GOLDEN, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_keys(seed: int, number: int, seq_len: int) -> NDArray[np.int64]:
    """int64 [seq_len], 31 bits each. number: of the sample in the whole run, from 0.

    The stream of SplitMix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators) that begins at
    a hash of seed and number.
    """
    keys = np.empty((1, seq_len), np.int64)
    draw_keys_into(seed, number, keys)
    return keys[0]


def draw_keys_into(seed: int, number: int, keys: NDArray[np.int64]) -> None:
    """``draw_keys`` of the samples ``number``, ``number`` + 1, ... in the rows of ``keys``, in place."""
    z = keys.view(np.uint64)
    hashed = (hashlib.blake2b(f"{seed}|draws|{number + row}".encode(), digest_size=8) for row in range(len(z)))
    starts = np.array([int.from_bytes(one.digest(), "little") for one in hashed], np.uint64)
    np.add(starts[:, None], _steps(z.shape[1]), out=z)
    high = np.empty_like(z)
    for shift, factor in ((30, FIRST), (27, SECOND)):
        np.right_shift(z, np.uint64(shift), out=high)
        z ^= high
        z *= factor
    np.right_shift(z, np.uint64(31), out=high)
    z ^= high
    z >>= np.uint64(33)


@lru_cache(maxsize=4)
def _steps(length: int) -> NDArray[np.uint64]:
    return GOLDEN * np.arange(1, length + 1, dtype=np.uint64)
