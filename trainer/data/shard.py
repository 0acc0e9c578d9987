"""One Megatron .bin/.idx pair, opened in place: looked at in a bounded number of places, never read whole."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.indexed import DTYPES, HEADER, MAGIC
from trainer.data.permutation import drawn_places
from trainer.data.pieces import Table, opened
from trainer.data.rising import between, first_above
from trainer.errors import DataError, Problem
from trainer.storage.base import is_remote

RUN = 128
"""Entries that are checked together at a drawn place of the index: 512 bytes of lengths, 1 KiB of each other table."""
PLACES = 16
CACHE = "data.cache_dir"
SAME_RUN = "copy or tokenise it again: PREFIX.bin and PREFIX.idx must come from the same complete run"


class IndexedShard:
    """A read-only view of PREFIX.bin/.idx.

    sequences, documents: how many. total: number of tokens. dtype: of a token in the file. digest: of the header, both
    files' sizes and what was looked at in the index. masked: whether some of its tokens are not trained on.
    """

    def __init__(self, prefix: str | Path, key: str = CACHE, places: int = PLACES, masked: bool | None = None) -> None:
        """key: the configuration key that a problem with these files is reported under. places: looked at in the index,
        besides both ends. masked: whether PREFIX.mask belongs to them; None: where there is one on this machine. Raises
        DataError.
        """
        self.index, self.data = f"{prefix}.idx", f"{prefix}.bin"
        self.error = partial(_refusal, key)
        self._index, self._data = opened(self.index, self.error, key), opened(self.data, self.error, key)
        code, self.sequences, entries = self._header()
        self.dtype: np.dtype[np.integer] = np.dtype(DTYPES[code])
        self.documents = entries - 1
        self.total = self._data.size // self.dtype.itemsize
        pointers, groups = (HEADER.size + width * self.sequences for width in (4, 12))
        self._lengths = Table(self._index, HEADER.size, "<i4", self.sequences)
        self._pointers = Table(self._index, pointers, "<i8", self.sequences)
        self._groups = Table(self._index, groups, "<i8", entries)
        self._tokens = Table(self._data, 0, DTYPES[code], self.total)
        self._check_ends()
        self.masked = has_mask(prefix) if masked is None else masked
        self._trained = self._mask(f"{prefix}.mask", key) if self.masked else None
        header = self._index.read(0, HEADER.size)
        digest = hashlib.blake2b(header + f"{self._index.size} {self._data.size}".encode(), digest_size=16)
        for start in sorted({0, *drawn_places(self.sequences, places, entries), self.sequences - RUN}):
            self._check_lengths(max(0, start), digest)
        for start in sorted({0, *drawn_places(entries, places, self.sequences), entries - RUN}):
            self._check_groups(max(0, start), digest)
        self.digest = digest.hexdigest()

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of PREFIX.bin and of PREFIX.idx."""
        return self._data.size, self._index.size

    def start_of(self, document: int) -> int:
        """Offset of a document's first token; `total` for the one behind the last."""
        sequence = self._groups[document]
        return self._pointers[sequence] // self.dtype.itemsize if sequence < self.sequences else self.total

    def starts(self, first: int, last: int) -> NDArray[np.int64]:
        """``start_of`` each of the documents first .. last. Raises DataError where they do not rise."""
        groups = self._groups[first : last + 1]
        if bool((np.diff(groups) < 0).any()) or groups[0] < 0 or groups[-1] > self.sequences:
            raise self.error(self.index, f"its document index must rise, also from entry {first} to {last}")
        pointers = self._pointers[groups[0] : groups[-1] + 1]
        if len(pointers) == groups[-1] - groups[0]:  # the last document ends with the file
            pointers = np.append(pointers, self._data.size)
        lengths = self._lengths[groups[0] : groups[-1]] * np.int64(self.dtype.itemsize)
        if bool((wrong := (lengths < 0) | (np.diff(pointers) != lengths)).any()):
            place = int(groups[0]) + 1 + int(np.argmax(wrong))
            raise self.error(self.index, f"its byte pointers do not follow from its lengths, at sequence {place}")
        return pointers[groups - groups[0]] // self.dtype.itemsize

    def document_at(self, token: int) -> int:
        """The document that a token belongs to."""
        sequence = first_above(self._pointers, token * self.dtype.itemsize, self._data.size) - 1
        return first_above(self._groups, sequence, self.sequences) - 1

    def borders(self, start: int, stop: int) -> NDArray[np.int64]:
        """Offsets above `start` up to `stop` at which a document begins, rising, each once; those below `total`.

        Raises DataError where the index does not rise.
        """
        size = self.dtype.itemsize
        first, pointers = between(self._pointers, start * size, stop * size, self._data.size)
        # Where damage has misled the search, the sequences around its answer do not follow from each other.
        lengths = self._lengths[first - 1 : first + len(pointers)] * np.int64(size)
        begin = self._pointers[first - 1] if first else 0
        ends = begin + np.cumsum(lengths)
        beyond = int(ends[-1]) if first + len(pointers) < self.sequences else stop * size + 1
        if begin > start * size or beyond <= stop * size or not np.array_equal(ends[: len(pointers)], pointers):
            raise self.error(self.index, f"its byte pointers do not follow from its lengths, at sequence {first}")
        if not len(pointers):
            return pointers
        _, groups = between(self._groups, first - 1, first + len(pointers) - 1, self.sequences)
        if bool((np.diff(groups) < 0).any()):
            rule = f"its document index must rise from 0 to the {self.sequences} sequences; it falls at {groups[0]}"
            raise self.error(self.index, rule)
        return np.unique(pointers[groups - first]) // size

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Ids start .. stop - 1, for 0 <= start <= stop <= total."""
        return self._tokens[start:stop].astype(np.int64)

    def tokens_into(self, start: int, ids: NDArray[np.integer]) -> None:
        """Fill ``ids``, which is in one piece and of this shard's dtype, with those from ``start`` on."""
        self._tokens.read_into(start, ids)

    def trained(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which of the tokens start .. stop - 1 are trained on."""
        return np.ones(stop - start, np.bool_) if self._trained is None else self._trained[start:stop] != 0

    def _mask(self, path: str, key: str) -> Table:
        file = opened(path, self.error, key)
        if file.size != self.total:
            raise self.error(path, f"has {file.size:,} bytes where there are {self.total:,} tokens")
        return Table(file, 0, "u1", self.total)

    def _header(self) -> tuple[int, int, int]:
        """Dtype code, sequences and entries of the document index, when the file's size goes with them."""
        raw, size = self._index.read(0, min(HEADER.size, self._index.size)), self._index.size
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            raise self.error(self.index, "does not start with Megatron's MMIDIDX header")
        _, version, code, sequences, entries = HEADER.unpack(raw)
        if version != 1:
            raise self.error(self.index, f"has version {version}; only version 1 is known")
        if code not in DTYPES or np.dtype(DTYPES[code]).kind == "f":
            raise self.error(self.index, f"has dtype code {code}; token ids need an integer type (1-5 or 8)")
        expected = HEADER.size + 12 * sequences + 8 * entries
        if sequences and size == expected + sequences:
            rule = f"is a multimodal index: it ends with a mode for each of its {sequences:,} sequences; text has none"
            raise self.error(self.index, rule, "tokenise the text alone, with a builder that is not multimodal")
        if size != expected:
            raise self.error(self.index, f"has {size} bytes where its header says {expected}")
        return code, sequences, entries

    def _check_ends(self) -> None:
        """That the tables begin and end where they must."""
        groups, sequences = self._groups, self.sequences
        if not len(groups) or groups[0] != 0 or groups[-1] != sequences:
            raise self.error(self.index, f"its document index must rise from 0 to the {sequences} sequences")
        end = self._pointers[-1] + self._lengths[-1] * self.dtype.itemsize if sequences else 0
        if sequences and self._pointers[0] != 0:
            raise self.error(self.index, f"its byte pointers must begin at 0, and begin at {self._pointers[0]}")
        if end != self._data.size:
            raise self.error(self.data, f"holds {self._data.size} bytes where the index says {end}")

    def _check_lengths(self, start: int, digest: hashlib.blake2b) -> None:
        """That lengths are not negative and pointers follow from them, in a run of sequences; adds both to a digest."""
        lengths = self._lengths[start : start + RUN].astype(np.int64)
        pointers = self._pointers[start : start + RUN + 1]
        if bool((lengths < 0).any()):
            raise self.error(self.index, f"has a negative length, at sequence {start + int(np.argmax(lengths < 0))}")
        wrong = np.diff(pointers) != lengths[: len(pointers) - 1] * self.dtype.itemsize
        if bool(wrong.any()):
            place = start + 1 + int(np.argmax(wrong))
            raise self.error(self.index, f"its byte pointers do not follow from its lengths, at sequence {place}")
        digest.update(f"{start}".encode() + lengths.tobytes() + pointers.tobytes())

    def _check_groups(self, start: int, digest: hashlib.blake2b) -> None:
        """That documents rise through the sequences, in a run of documents; adds them to a digest."""
        groups = self._groups[start : start + RUN + 1]
        if bool((np.diff(groups) < 0).any() or groups.min() < 0 or groups.max() > self.sequences):
            rule = f"its document index must rise from 0 to the {self.sequences} sequences, also from entry {start} on"
            raise self.error(self.index, rule)
        digest.update(f"{start}".encode() + groups.tobytes())


def has_mask(prefix: str | Path) -> bool:
    """Whether a mask lies beside a pair on this machine; in storage nobody looks for one that is not announced."""
    return not is_remote(str(prefix)) and Path(f"{prefix}.mask").is_file()


def _refusal(key: str, file: str, rule: str, remedy: str = "") -> DataError:
    """A problem of one of the two files. remedy: where the files are none of ours."""
    if key == CACHE:
        remedy = f"delete {Path(file).parent}; it will be built again"
    return DataError(Problem(key, file, rule, remedy or SAME_RUN))
