"""index.json of a part of a checkpoint: which box of which tensor is in which rank's file.

{"format": 2, "tensors": {name: {"dtype", "shape", "cuts", "ranks"}}}: a grid. ``cuts`` has, for each dim, where its
chunks begin; ``ranks`` the rank of each cell in row-major order, whose file ``rank-NNNNN.safetensors`` holds it. Where
chunks are no grid, "chunks" takes their place: [{"offsets", "sizes", "file", "key"}]. Format 1 has such lists only. A
whole tensor is stored under its name, so that any safetensors reader finds it; a part as NAME@OFFSET,OFFSET.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint.hashed_file import Written, write_hashed
from trainer.checkpoint.strict_json import Unsound, mapping, read, shown, wholes
from trainer.checkpoint.tensorfile import element_bytes
from trainer.checkpoint.tiling import Ints, covered_once, grid

INDEX = "index.json"
MOST_DIMS, MOST_RANKS = 8, 10**9
LONGEST = 1 << 30
"""Bytes of the largest index that is read."""
_FILE = re.compile(r"rank-(\d{5,9})\.safetensors")


def file_of(rank: int) -> str:
    """Name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def rank_of(file: Any) -> int:
    """Inverse of file_of. Raises Unsound for any other name, one with a path in it above all."""
    match = _FILE.fullmatch(file) if isinstance(file, str) else None
    if match is None or file_of(int(match[1])) != file:
        raise Unsound(f"names {shown(file)}, which is no rank's file")
    return int(match[1])


def key_of(name: str, shape: tuple[int, ...], offsets: Iterable[int], sizes: Iterable[int]) -> str:
    """The canonical name for a whole tensor; with its offsets for a part of one."""
    return name if tuple(sizes) == shape else f"{name}@{','.join(map(str, offsets))}"


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of a checkpoint, in chunks that cover it exactly once.

    cuts: where a grid's chunks begin, for each dim; None for a list. offsets, sizes: [chunks, dims], of a list only.
    ranks: [chunks], whose file has it.
    """

    dtype: str
    shape: tuple[int, ...]
    ranks: Ints
    cuts: tuple[Ints, ...] | None = None
    offsets: Ints | None = None
    sizes: Ints | None = None

    @classmethod
    def of(cls, dtype: str, shape: tuple[int, ...], ranks: Ints, offsets: Ints, sizes: Ints) -> Stored:
        """From chunks in any order. Raises Unsound when they do not cover the tensor exactly once."""
        element_bytes(dtype)
        if (found := grid(shape, offsets, sizes)) is not None:
            cuts, order = found
            return cls(dtype, shape, ranks[order], tuple(cuts))
        if not covered_once(shape, offsets, sizes):
            covered = sum(math.prod(map(int, size)) for size in sizes)
            gap = "leave gaps" if covered < math.prod(shape) else "overlap or reach beyond it"
            raise Unsound(f"its {len(ranks)} chunks do not cover it exactly once: they {gap}")
        return cls(dtype, shape, ranks, None, offsets, sizes)

    def chunks(self) -> tuple[Ints, Ints]:
        """Offsets and sizes, each int64 [chunks, dims]."""
        if self.offsets is not None and self.sizes is not None:
            return self.offsets, self.sizes
        assert self.cuts is not None
        dims, extents = len(self.shape), zip(self.cuts, self.shape, strict=True)
        sizes = [np.diff(np.append(cut, extent)) for cut, extent in extents]
        return _cells(self.cuts, dims), _cells(sizes, dims)

    def chunk(self, number: int) -> tuple[list[int], tuple[int, ...]]:
        """Offsets and sizes of one chunk."""
        if self.offsets is not None and self.sizes is not None:
            return self.offsets[number].tolist(), tuple(self.sizes[number].tolist())
        assert self.cuts is not None
        offsets, sizes = [0] * len(self.shape), list(self.shape)
        for dim in reversed(range(len(self.shape))):
            cut = self.cuts[dim]
            number, cell = divmod(number, len(cut))
            end = cut[cell + 1] if cell + 1 < len(cut) else self.shape[dim]
            offsets[dim], sizes[dim] = int(cut[cell]), int(end - cut[cell])
        return offsets, tuple(sizes)

    def to_json(self, name: str) -> dict[str, Any]:
        """Its entry of format 2."""
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape)}
        if self.cuts is not None:
            return entry | {"cuts": [cut.tolist() for cut in self.cuts], "ranks": self.ranks.tolist()}
        offsets, sizes = (part.tolist() for part in self.chunks())
        keyed = zip(self.ranks.tolist(), offsets, sizes, strict=True)
        chunks = [
            {"offsets": o, "sizes": s, "file": file_of(rank), "key": key_of(name, self.shape, o, s)}
            for rank, o, s in keyed
        ]
        return entry | {"chunks": chunks}


def _cells(along: Iterable[Ints], dims: int) -> Ints:
    """All combinations of a value of each dim, in row-major order: int64 [cells, dims]."""
    mesh = np.meshgrid(*along, indexing="ij")
    return np.stack([part.reshape(-1) for part in mesh], axis=1) if dims else np.zeros((1, 0), dtype=np.int64)


def write_index(path: Path, tensors: Iterable[tuple[str, Stored]]) -> Written:
    """Tensor by tensor, a line each: the index of millions of chunks is never in memory."""
    return write_hashed(path, _lines(tensors))


def _lines(tensors: Iterable[tuple[str, Stored]]) -> Iterator[bytes]:
    yield b'{"format": 2, "tensors": {'
    comma = ""
    for name, tensor in tensors:
        entry = json.dumps(tensor.to_json(name), separators=(",", ":"))
        yield f"{comma}\n{json.dumps(name)}: {entry}".encode()
        comma = ","
    yield b"\n}}\n"


def read_index(directory: Path) -> Mapping[str, Stored]:
    """The tensors of a part by name. Raises Unsound when anything is not as this module writes it; or OSError."""
    index = mapping(read(directory / INDEX, LONGEST), "the index")
    if (form := index.get("format", 1)) not in (1, 2) or type(form) is not int:
        raise Unsound(f"format {shown(form)}, this version reads 1 and 2")
    tensors = mapping(index.get("tensors"), "tensors")
    found = {}
    for name in list(tensors):
        try:
            found[name] = _read_tensor(name, mapping(tensors.pop(name), "its entry"))
        except Unsound as error:
            raise Unsound(f"{shown(name)}: {error}") from None
    return found


def _read_tensor(name: str, entry: dict[str, Any]) -> Stored:
    dtype, shape = entry.get("dtype"), tuple(wholes(entry.get("shape"), "its shape"))
    if not isinstance(dtype, str):
        raise Unsound(f"its dtype is {shown(dtype)}")
    if len(shape) > MOST_DIMS:
        raise Unsound(f"it has {len(shape)} dims")
    if math.prod(shape) * element_bytes(dtype) >= 1 << 62:
        raise Unsound("it is larger than anything that could be stored")
    if "chunks" in entry and "cuts" not in entry:
        return _read_list(name, dtype, shape, entry["chunks"])
    return _read_grid(dtype, shape, entry.get("cuts"), entry.get("ranks"))


def _read_grid(dtype: str, shape: tuple[int, ...], cuts: Any, ranks: Any) -> Stored:
    if type(cuts) is not list or len(cuts) != len(shape):
        raise Unsound("it is cut along other dims than it has")
    starts = [np.array(wholes(cut, "a cut"), dtype=np.int64) for cut in cuts]
    for cut, extent in zip(starts, shape, strict=True):
        if not len(cut) or cut[0] != 0 or (np.diff(np.append(cut, extent)) < 1).any():
            raise Unsound("its chunks do not cover it exactly once: they leave gaps or overlap")
    owners = wholes(ranks, "ranks")
    if len(owners) != math.prod(map(len, starts)):
        raise Unsound(f"its grid has {math.prod(map(len, starts))} chunks, and {len(owners)} ranks hold them")
    if owners and max(owners) >= MOST_RANKS:
        raise Unsound("it names a rank that cannot be")
    return Stored(dtype, shape, np.array(owners, dtype=np.int32), tuple(starts))


def _read_list(name: str, dtype: str, shape: tuple[int, ...], chunks: Any) -> Stored:
    if type(chunks) is not list:
        raise Unsound(f"chunks is {shown(chunks)}, not a list")
    offsets, sizes, ranks = [], [], []
    for chunk in (mapping(chunk, "a chunk") for chunk in chunks):
        offsets.append(wholes(chunk.get("offsets"), "a chunk's offsets"))
        sizes.append(wholes(chunk.get("sizes"), "a chunk's sizes"))
        ranks.append(rank_of(chunk.get("file")))
        if len(offsets[-1]) != len(shape) or len(sizes[-1]) != len(shape):
            raise Unsound("a chunk has other dims than it has")
        if chunk.get("key") != key_of(name, shape, offsets[-1], sizes[-1]):
            raise Unsound(f"a chunk has the key {shown(chunk.get('key'))}, which does not say where it belongs")
    table = [np.array(part, dtype=np.int64).reshape(len(ranks), len(shape)) for part in (offsets, sizes)]
    return Stored.of(dtype, shape, np.array(ranks, dtype=np.int32), *table)
