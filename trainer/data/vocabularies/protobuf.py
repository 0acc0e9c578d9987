"""Protocol Buffers' wire format: the fields of a message, by number (protobuf.dev, Encoding)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
"""Bytes of a 64-bit number at most."""

Field = tuple[int, int | float | bytes]
"""Number and value: int of a varint, float of four bytes, bytes of a string, a message or eight bytes."""


class NotProtobuf(ValueError):
    """Bytes that are no message."""


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message in their order. Raises NotProtobuf."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise NotProtobuf(f"field 0 at byte {place}")
        value: int | float | bytes
        if kind == VARINT:
            value, place = _varint(message, place)
        elif kind == BYTES:
            size, place = _varint(message, place)
            value, place = _cut(message, place, size)
        elif kind == FIXED32:
            raw, place = _cut(message, place, 4)
            (value,) = struct.unpack("<f", raw)
        elif kind == FIXED64:
            value, place = _cut(message, place, 8)
        else:
            raise NotProtobuf(f"wire type {kind} at byte {place}")
        yield number, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise NotProtobuf(f"a number without an end at byte {place}")


def _cut(message: bytes, place: int, size: int) -> tuple[bytes, int]:
    if size > len(message) - place:
        raise NotProtobuf(f"{size} bytes at byte {place} of {len(message)}")
    return message[place : place + size], place + size
