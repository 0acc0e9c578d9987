"""Megatron's indexed data set, and its writer: PREFIX.bin holds token ids end to end, PREFIX.idx each document's place.

The .idx, little-endian: b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code, u64 sequences S, u64 entries D of the document
index, int32 lengths[S] in tokens, int64 pointers[S] in bytes, int64 documents[D]: document i is made of the sequences
documents[i] .. documents[i + 1] - 1. What we write has one sequence per document. A multimodal index ends with one more
byte per sequence, its mode.

PREFIX.mask, ours: a byte for each token of PREFIX.bin, 1 where the token is trained on, 0 where it is only read.
Without the file all are trained on.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""Megatron's dtype codes. The reader refuses the float types."""
UINT16, INT32 = 8, 4
AT_ONCE = 1 << 20
"""Tokens that are written at once, and documents of which the index is."""


def code_for(vocab: int) -> int:
    """The dtype code of tokens of a tokenizer. vocab: number of ids; up to 65,536 fit two bytes."""
    return UINT16 if vocab <= 1 << 16 else INT32


class IndexedWriter:
    """Writes PREFIX.bin as documents are appended and PREFIX.idx on close. A context manager: closes on success."""

    def __init__(self, prefix: Path, vocab: int, masked: bool = False) -> None:
        """vocab: number of ids. masked: write PREFIX.mask, too."""
        self._code = code_for(vocab)
        self._dtype = np.dtype(DTYPES[self._code])
        self._vocab = vocab
        self._prefix = prefix
        self._lengths = array("i")
        self._bin = open(f"{prefix}.bin", "wb")  # noqa: SIM115  # open until close()
        self._mask = open(f"{prefix}.mask", "wb") if masked else None  # noqa: SIM115

    def append(self, tokens: Sequence[int] | NDArray[np.integer], trained: NDArray[np.bool_] | None = None) -> None:
        """Add one document. trained: which of its tokens are; None: all. Raises ValueError when it is empty or an id is
        out of range.
        """
        ids = np.asarray(tokens)
        if not ids.size:
            raise ValueError("a document holds at least one token")
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocab:
            raise ValueError(f"token ids must lie in 0 .. {self._vocab - 1}, got {ids.min()} .. {ids.max()}")
        for start in range(0, ids.size, AT_ONCE):
            self._bin.write(ids[start : start + AT_ONCE].astype(self._dtype).tobytes())
        if self._mask is not None:
            self._mask.write((np.ones(ids.size, np.bool_) if trained is None else trained).tobytes())
        self._lengths.append(ids.size)

    def close(self) -> None:
        """Write the index and fsync all files."""
        for file in self._files():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        lengths = np.asarray(self._lengths, dtype="<i4")
        with open(f"{self._prefix}.idx", "wb") as index:
            for block in index_blocks(self._code, len(lengths), lambda: [lengths]):
                index.write(block)
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        for file in self._files():
            file.close()

    def _files(self) -> list[BinaryIO]:
        return [self._bin, *([] if self._mask is None else [self._mask])]


def index_blocks(code: int, count: int, lengths: Callable[[], Iterable[NDArray[np.int32]]]) -> Iterator[bytes]:
    """The bytes of an .idx of one sequence per document. code: of the dtype. lengths: in tokens, `count` in all."""
    yield HEADER.pack(MAGIC, 1, code, count, count + 1)
    for block in lengths():
        yield block.astype("<i4").tobytes()
    pointer, size = 0, np.dtype(DTYPES[code]).itemsize
    for block in lengths():
        ends = pointer + np.cumsum(block, dtype="<i8") * size
        yield (ends - block.astype("<i8") * size).tobytes()
        pointer = int(ends[-1]) if len(ends) else pointer
    for start in range(0, count + 1, AT_ONCE):
        yield np.arange(start, min(start + AT_ONCE, count + 1), dtype="<i8").tobytes()


def read_lengths(prefix: Path) -> NDArray[np.int32]:
    """The lengths in tokens of an index that `IndexedWriter` has left, memory-mapped."""
    with open(f"{prefix}.idx", "rb") as index:
        count = HEADER.unpack(index.read(HEADER.size))[3]
    if not count:
        return np.zeros(0, np.int32)
    return np.memmap(f"{prefix}.idx", "<i4", "r", HEADER.size, (count,))
