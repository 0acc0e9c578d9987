"""The safetensors format: 8 bytes with the length of a JSON header, the header, and the tensors' bytes one by one.

https://huggingface.co/docs/safetensors/index#format. Any safetensors reader opens what this writes; this reads what
the safetensors library writes, and is stricter: it says what is wrong with a header, and wants aligned tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoint.strict_json import Unsound, mapping, parse, regular, shown, wholes

CODES = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "int16": ("I16", 2),
    "uint16": ("U16", 2),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "int32": ("I32", 4),
    "uint32": ("U32", 4),
    "float32": ("F32", 4),
    "int64": ("I64", 8),
    "uint64": ("U64", 8),
    "float64": ("F64", 8),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
}
"""torch's name of a dtype -> the format's code, and bytes of an element."""
_DTYPES = {code: name for name, (code, _) in CODES.items()}
LONGEST_HEADER = 100_000_000
"""Bytes: the safetensors library reads no longer one."""


def element_bytes(dtype: str) -> int:
    """Bytes of an element. Raises Unsound for a dtype that the format does not have."""
    if dtype not in CODES:
        raise Unsound(f"dtype {shown(dtype)} is unknown")
    return CODES[dtype][1]


@dataclass(frozen=True)
class Entry:
    """A tensor in a file. start: its first byte, from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """What stands before the data of tensors (key, dtype, shape) in this order, padded to a multiple of 8 bytes.

    Larger elements must come first, so that every tensor is aligned.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, dtype, shape in tensors:
        code, size = CODES[dtype]
        start, end = end, end + size * math.prod(shape)
        assert start % size == 0, f"{key} would not be aligned"
        entries[key] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file by key. Raises Unsound when they do not fill the file, one after another; or OSError."""
    return read_contents(path)[0]


def read_contents(path: Path) -> tuple[dict[str, Entry], object]:
    """What read_header says, and the header's metadata as it stands there: None without."""
    size = regular(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise Unsound(f"a header of {length:,} bytes in a file of {size:,}")
        found = mapping(parse(file.read(length)), "the header")
    metadata = found.pop("__metadata__", None)
    entries, spans = {}, []
    for key, entry in found.items():
        dtype, shape, start, end = _entry(key, mapping(entry, f"{shown(key)} in the header"))
        spans.append((start, end))
        entries[key] = Entry(dtype, shape, 8 + length + start)
    reached = 0
    for start, end in sorted(spans):
        if start != reached:
            raise Unsound("its tensors overlap or leave gaps")
        reached = end
    if 8 + length + reached != size:
        raise Unsound(f"its header speaks of {8 + length + reached:,} bytes, the file has {size:,}")
    return entries, metadata


def _entry(key: str, entry: dict[str, object]) -> tuple[str, tuple[int, ...], int, int]:
    code = entry.get("dtype")
    if not isinstance(code, str) or code not in _DTYPES:
        raise Unsound(f"{shown(key)} has dtype {shown(code)}, which is unknown")
    shape = tuple(wholes(entry.get("shape"), f"the shape of {shown(key)}"))
    offsets = wholes(entry.get("data_offsets"), f"data_offsets of {shown(key)}")
    wanted, unit = math.prod(shape) * CODES[_DTYPES[code]][1], CODES[_DTYPES[code]][1]
    if len(offsets) != 2 or offsets[1] - offsets[0] != wanted or offsets[0] % unit:
        raise Unsound(f"data_offsets of {shown(key)} do not fit its shape")
    return _DTYPES[code], shape, offsets[0], offsets[1]
