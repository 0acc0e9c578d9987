"""The header of a GGUF file: metadata and where each tensor lies. Strict, and without the tensors' bytes.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's own reader makes an array of every token
and merge of the vocabulary, which takes seconds to a minute; this takes a moment, and says what is wrong with a file.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, regular, shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""1 had lengths of 32 bits, and was written for two weeks of 2023."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its format in the struct module."""
TEXT, ARRAY = 8, 9
ALIGNMENT = 32
"""Where general.alignment does not say otherwise."""
MOST = 1 << 20
"""Metadata, or tensors, that a file may speak of."""


@dataclass(frozen=True)
class Placed:
    """A tensor. kind: ggml's name of its type. shape: rows first, as everywhere but in the file. start: its first
    byte from the beginning of the file; bytes: how many.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """metadata: by key; arrays are lists. size: of the header in bytes."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Placed]
    size: int


def read_header(path: Path) -> Header:
    """Raises Unsound where the file is not a whole GGUF of this byte order whose types are known; or OSError."""
    size = regular(path)
    if size < 24:
        raise Unsound(f"a file of {size:,} bytes has no header")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _Reader(mapped, size).header()


class _Reader:
    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data, self._size, self._at = data, size, 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise Unsound("it does not begin with GGUF")
        version = self._number("I")
        if version not in VERSIONS and version & 0xFFFF == 0:
            raise Unsound("it is big-endian")
        if version not in VERSIONS:
            raise Unsound(f"it has version {version}, of which {VERSIONS[0]} and {VERSIONS[1]} are read")
        tensors, values = self._number("Q"), self._number("Q")
        if max(tensors, values) > MOST:
            raise Unsound(f"its header speaks of {tensors:,} tensors and {values:,} keys")
        metadata: dict[str, Any] = {}
        for _ in range(values):
            key = self._text()
            if key in metadata:
                raise Unsound(f"{shown(key)} is there twice")
            metadata[key] = self._value(self._number("I"))
        described = [self._described() for _ in range(tensors)]
        return Header(metadata, self._placed(described, metadata.get("general.alignment", ALIGNMENT)), self._at)

    def _described(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dims = self._text(), self._number("I")
        if not 1 <= dims <= 4:
            raise Unsound(f"{shown(name)} has {dims} dims")
        shape = tuple(self._number("Q") for _ in range(dims))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _placed(self, described: list[tuple[str, tuple[int, ...], int, int]], alignment: Any) -> dict[str, Placed]:
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise Unsound(f"general.alignment is {shown(alignment)}")
        begin = -(-self._at // alignment) * alignment
        found: dict[str, Placed] = {}
        for name, shape, number, offset in described:
            if name in found:
                raise Unsound(f"{shown(name)} is there twice")
            kind, block, width = _kind(name, number)
            if shape[-1] % block or not all(0 < size < 1 << 40 for size in shape):
                raise Unsound(f"{shown(name)} has shape {list(shape)} in blocks of {block}")
            count = math.prod(shape) // block * width
            if offset % alignment or begin + offset + count > self._size:
                end = begin + offset + count
                raise Unsound(f"{shown(name)} ends at byte {end:,}, the file has {self._size:,}")
            found[name] = Placed(kind, shape, begin + offset, count)
        return found

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == TEXT:
            return self._text()
        if kind != ARRAY or depth > 2:
            raise Unsound(f"a value of type {kind} at byte {self._at:,}, which is unknown")
        inner, count = self._number("I"), self._number("Q")
        if inner in SCALARS:
            code = SCALARS[inner]
            return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(f"<{code}"))))
        if count > self._size:
            raise Unsound(f"an array of {count:,} values in a file of {self._size:,} bytes")
        return [self._value(inner, depth + 1) for _ in range(count)]

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        data = self._take(self._number("Q"))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Unsound(f"a text before byte {self._at:,} is no UTF-8") from None

    def _take(self, count: int) -> bytes:
        if self._at + count > self._size:
            raise Unsound(f"its header goes on past its end, at byte {self._size:,}")
        self._at += count
        return self._data[self._at - count : self._at]


def _kind(name: str, number: int) -> tuple[str, int, int]:
    """Name of a type; elements and bytes of a block. Raises Unsound for a type that cannot be read."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    try:
        kind = GGMLQuantizationType(number)
        block, width = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, width), dtype=np.uint8), kind)
    except (ValueError, KeyError):
        raise Unsound(f"{shown(name)} has type {number}, which is unknown") from None
    except NotImplementedError:
        raise Unsound(f"{shown(name)} has type {GGMLQuantizationType(number).name}, which gguf does not read") from None
    return kind.name, block, width
