"""Megatron's indexed data set: PREFIX.bin holds concatenated token ids, PREFIX.idx each document's position.

The .idx, little-endian: b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code, u64 sequences S, u64 entries D of the document
index, int32 lengths[S] in tokens, int64 pointers[S] in bytes, int64 documents[D]: document i is made of the sequences
documents[i] .. documents[i + 1] - 1. What we write has one sequence per document.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError, Problem

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""Megatron's dtype codes. The reader refuses the float types."""
UINT16, INT32 = 8, 4


class IndexedWriter:
    """Writes PREFIX.bin as documents are appended and PREFIX.idx on close. A context manager: closes on success."""

    def __init__(self, prefix: Path, vocab: int) -> None:
        """vocab: number of ids; up to 65,536 fit two bytes."""
        self._code = UINT16 if vocab <= 1 << 16 else INT32
        self._dtype = np.dtype(DTYPES[self._code])
        self._vocab = vocab
        self._prefix = prefix
        self._lengths = array("i")
        self._bin = open(f"{prefix}.bin", "wb")  # noqa: SIM115  # open until close()

    def append(self, tokens: Sequence[int] | NDArray[np.integer]) -> None:
        """Add one document. Raises ValueError when it is empty or an id is out of range."""
        ids = np.asarray(tokens, dtype=np.int64)
        if not ids.size:
            raise ValueError("a document holds at least one token")
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocab:
            raise ValueError(f"token ids must lie in 0 .. {self._vocab - 1}, got {ids.min()} .. {ids.max()}")
        self._bin.write(ids.astype(self._dtype).tobytes())
        self._lengths.append(ids.size)

    def close(self) -> None:
        """Write the index and fsync both files."""
        self._bin.flush()
        os.fsync(self._bin.fileno())
        self._bin.close()
        lengths = np.asarray(self._lengths, dtype="<i4")
        ends = np.cumsum(lengths, dtype="<i8") * self._dtype.itemsize
        pointers = np.concatenate([np.zeros(1, "<i8"), ends])[: len(lengths)]
        with open(f"{self._prefix}.idx", "wb") as index:
            index.write(HEADER.pack(MAGIC, 1, self._code, len(lengths), len(lengths) + 1))
            for part in (lengths, pointers.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8")):
                index.write(part.tobytes())
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self._bin.close()


class IndexedTokens:
    """A read-only, memory-mapped view of PREFIX.bin/.idx.

    documents: number of documents. total: number of tokens.
    document_starts: int64 [documents + 1], the offset of each document's first token, then `total`.
    """

    def __init__(self, prefix: str | Path, key: str = "data.cache_dir") -> None:
        """key: the configuration key that a problem with these files is reported under. Raises DataError."""
        self._index = Path(f"{prefix}.idx")
        self._data = Path(f"{prefix}.bin")
        self._key = key
        try:
            raw = self._index.read_bytes()
            data_size = self._data.stat().st_size
        except OSError as error:
            raise self._error(Path(str(error.filename)), f"cannot be read: {error.strerror}") from error
        dtype, lengths, pointers, groups = self._parse(raw)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        if not np.array_equal(pointers, offsets[:-1] * dtype.itemsize):
            raise self._error(self._index, "its byte pointers do not follow from its lengths")
        self.total = int(offsets[-1])
        if data_size != self.total * dtype.itemsize:
            expected = f"{self.total} tokens of {dtype.itemsize} bytes"
            raise self._error(self._data, f"holds {data_size} bytes where the index says {expected}")
        self.documents = len(groups) - 1
        self.document_starts: NDArray[np.int64] = offsets[groups]
        self._tokens: NDArray[np.integer] = (
            np.memmap(self._data, dtype=dtype, mode="r") if self.total else np.zeros(0, dtype)  # mmap needs data
        )

    def document(self, index: int) -> NDArray[np.int64]:
        """Ids of one document, [its length]."""
        if not 0 <= index < self.documents:
            raise IndexError(f"document {index} of {self.documents}")
        return self.slice(int(self.document_starts[index]), int(self.document_starts[index + 1]))

    def slice(self, start: int, stop: int) -> NDArray[np.int64]:
        """Ids start .. stop - 1 of the concatenated documents; shorter at the end of the stream."""
        return self._tokens[start:stop].astype(np.int64)

    def _parse(
        self, raw: bytes
    ) -> tuple[np.dtype[np.integer], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            raise self._error(self._index, "does not start with Megatron's MMIDIDX header")
        _, version, code, sequences, entries = HEADER.unpack_from(raw)
        if version != 1:
            raise self._error(self._index, f"has version {version}; only version 1 is known")
        if code not in DTYPES or np.dtype(DTYPES[code]).kind == "f":
            raise self._error(self._index, f"has dtype code {code}; token ids need an integer type (1-5 or 8)")
        expected = HEADER.size + 12 * sequences + 8 * entries
        if len(raw) != expected:
            raise self._error(self._index, f"has {len(raw)} bytes where its header says {expected}")
        lengths = np.frombuffer(raw, "<i4", sequences, HEADER.size)
        pointers = np.frombuffer(raw, "<i8", sequences, HEADER.size + 4 * sequences)
        groups = np.frombuffer(raw, "<i8", entries, HEADER.size + 12 * sequences)
        if bool((lengths < 0).any()):
            raise self._error(self._index, "has a negative length")
        if not entries or groups[0] != 0 or groups[-1] != sequences or bool((np.diff(groups) < 0).any()):
            raise self._error(self._index, f"its document index must rise from 0 to the {sequences} sequences")
        return np.dtype(DTYPES[code]), lengths, pointers, groups

    def _error(self, file: Path, rule: str) -> DataError:
        if self._key == "data.cache_dir":
            remedy = f"delete {file.parent}; it will be built again"
        else:
            remedy = "copy or tokenise it again: PREFIX.bin and PREFIX.idx must come from the same complete run"
        return DataError(Problem(self._key, str(file), rule, remedy))
