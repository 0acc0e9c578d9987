"""What each rank wrote, as bytes, and how rank 0 puts the reports of all ranks together. Linear in chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.index import Stored
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tiling import Ints


class Chunk(NamedTuple):
    """A box that a rank wrote."""

    part: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class Tensor(NamedTuple):
    """What ranks have to agree on about a tensor."""

    part: str
    name: str
    dtype: str
    shape: tuple[int, ...]


def encode(chunks: Sequence[Chunk], files: Mapping[str, Written]) -> bytes:
    """Three fields, each after its length: tensors (JSON), files (JSON), and int64 [chunks, 1 + 2 x dims] (raw).

    The rows: which of the tensors, offsets, sizes; 0 along dims that a tensor lacks. files: by path in the
    checkpoint.
    """
    tensors = list(dict.fromkeys(Tensor(*chunk[:4]) for chunk in chunks))
    number = {tensor: index for index, tensor in enumerate(tensors)}
    dims = max((len(tensor.shape) for tensor in tensors), default=0)
    table = np.zeros((len(chunks), 1 + 2 * dims), dtype=np.int64)
    for row, chunk in zip(table, chunks, strict=True):
        count = len(chunk.shape)
        row[0] = number[Tensor(*chunk[:4])]
        row[1 : 1 + count], row[1 + dims : 1 + dims + count] = chunk.offsets, chunk.sizes
    about = {name: [written.size, written.sha256] for name, written in files.items()}
    fields = (json.dumps(tensors).encode(), json.dumps(about).encode(), table.tobytes())
    return b"".join(len(field).to_bytes(8, "little") + field for field in fields)


def _fields(report: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(report):
        length = int.from_bytes(report[at : at + 8], "little")
        yield report[at + 8 : at + 8 + length]
        at += 8 + length


class Reports:
    """The reports of all ranks, on rank 0."""

    def __init__(self) -> None:
        self.files: dict[str, Written] = {}
        """By path in the checkpoint."""
        self._numbers: dict[Tensor, int] = {}
        self._known: dict[bytes, tuple[NDArray[np.int32], int]] = {}
        self._ranks: list[Ints] = []
        self._which: list[Ints] = []
        self._boxes: list[Ints] = []

    def add(self, rank: int, report: bytes) -> None:
        """A rank's report."""
        tensors, files, raw = _fields(report)
        if tensors not in self._known:  # most ranks hold parts of the same tensors, and say so in the same words
            self._known[tensors] = self._learn(tensors)
        numbers, dims = self._known[tensors]
        table = np.array(memoryview(raw).cast("q"), dtype=np.int64).reshape(-1, 1 + 2 * dims)
        boxes = table[:, 1:].reshape(len(table), 2, dims)
        small = not boxes.size or boxes.max() < 1 << 30
        self._ranks.append(np.full(len(table), rank, dtype=np.int32))
        self._which.append(numbers[table[:, 0]])
        self._boxes.append(boxes.astype(np.int32 if small else np.int64))
        self.files |= {name: Written(*about) for name, about in json.loads(files).items()}

    def _learn(self, words: bytes) -> tuple[NDArray[np.int32], int]:
        tensors = [Tensor(part, name, dtype, tuple(shape)) for part, name, dtype, shape in json.loads(words)]
        numbers = [self._numbers.setdefault(tensor, len(self._numbers)) for tensor in tensors]
        return np.array(numbers, dtype=np.int32), max((len(tensor.shape) for tensor in tensors), default=0)

    def together(self) -> Tensors:
        """What all ranks reported. Once: the reports are let go of, since there may be millions of chunks."""
        return Tensors(list(self._numbers), _joined(self._ranks), _joined(self._which), _joined(self._boxes))


class Tensors:
    """The tensors of all ranks."""

    def __init__(self, tensors: list[Tensor], ranks: Ints, which: Ints, boxes: Ints) -> None:
        """ranks, which, boxes: of each chunk its writer, its place in ``tensors``, its offsets and sizes."""
        self._tensors, self._ranks, self._boxes = tensors, ranks, boxes
        self._order = np.argsort(which, kind="stable").astype(np.int32)
        self._first = np.searchsorted(which[self._order], np.arange(len(tensors) + 1))

    def of(self, part: str) -> Iterator[tuple[str, Stored]]:
        """A part's tensors by name; each is proven to be covered exactly once. Raises Unsound where one is not."""
        seen: set[str] = set()
        for number, (of, name, dtype, shape) in enumerate(self._tensors):
            if of != part:
                continue
            assert name not in seen, f"ranks disagree on dtype or shape of {name}"
            seen.add(name)
            rows = self._order[self._first[number] : self._first[number + 1]]
            offsets, sizes = (self._boxes[rows, half, : len(shape)].astype(np.int64) for half in (0, 1))
            try:
                yield name, Stored.of(dtype, shape, self._ranks[rows], offsets, sizes)
            except Unsound as error:
                raise Unsound(f"{part}: {name}: {error}") from None


def _joined(parts: list[Ints]) -> Ints:
    """The concatenation along dim 0, with zeros where a part is shorter along the last; the parts are let go of."""
    last = max(part.shape[-1] for part in parts)
    inner = (2, last) if parts[0].ndim == 3 else ()
    whole = np.zeros((sum(map(len, parts)), *inner), dtype=np.result_type(*(part.dtype for part in parts)))
    at = 0
    for part in parts:
        rows = whole[at : at + len(part)]
        rows[..., : part.shape[-1]] = part
        at += len(part)
    parts.clear()
    return whole
