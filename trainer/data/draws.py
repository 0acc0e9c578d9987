"""What dropout draws by: a key for each position of a training sample, whatever rank or microbatch it falls to."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GOLDEN, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_keys(seed: int, number: int, seq_len: int) -> NDArray[np.int64]:
    """int64 [seq_len], 31 bits each. number: of the sample in the whole run, from 0.

    The stream of SplitMix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators) that begins at
    a hash of seed and number.
    """
    start = hashlib.blake2b(f"{seed}|draws|{number}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        z = np.uint64(int.from_bytes(start, "little")) + GOLDEN * np.arange(1, seq_len + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * FIRST
        z = (z ^ (z >> np.uint64(27))) * SECOND
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(33)).astype(np.int64)
