"""The bytes of a file in blocks, unpacked, and these cut at separators."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trainer.data.readers.found import LIMIT, Unreadable

BLOCK = 1 << 20
BEGINNING = 8 << 10
"""Bytes in which a NUL tells that the file is no text."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UNPACK: dict[str, Callable[..., Any]] = {"": Path.open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def blocks(file: Path, compression: str) -> Iterator[bytes]:
    """The file's text as bytes, without a byte-order mark.

    Raises Unreadable for what begins as no text, EOFError or OSError for what was cut short.
    """
    with closing(opened(file, compression)) as stream:
        first = stream.read(BLOCK)
        if first.startswith(UTF16) or b"\0" in first[:BEGINNING]:
            raise Unreadable("text has no NUL bytes: binary, or UTF-16", "convert it to UTF-8, or leave it out")
        yield first.removeprefix(codecs.BOM_UTF8)
        while block := stream.read(BLOCK):
            yield block


def opened(file: Path, compression: str) -> Any:
    """The file as a stream of unpacked bytes, to be read and closed."""
    if compression != ".zst":
        return UNPACK[compression](file, "rb")
    import pyarrow

    # It says so when the file was cut short; the zstandard package's reader takes what there is for all.
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd")


def unix_newlines(source: Iterable[bytes]) -> Iterator[bytes]:
    r"""Blocks in which \r\n and \r are \n, as Python's text files have it."""
    held = b""
    for block in source:
        block, held = held + block, b""
        if b"\r" in block:
            if block.endswith(b"\r"):
                block, held = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if held:
        yield b"\n"


class _Held:
    """The beginning of a piece whose end is not read yet. Of one that is longer than LIMIT only the size is kept."""

    def __init__(self, dropped: Callable[[bytes], None]) -> None:
        self.dropped = dropped
        self.clear()

    def clear(self) -> None:
        self.parts: list[bytes] = []
        self.size, self.newlines, self.over = 0, 0, False

    def add(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part)
        self.over = self.over or self.size > LIMIT
        if self.over:
            content = b"".join(self.parts)
            kept = b"\n" if content.endswith(b"\n") else b""  # may be half of a separator
            self.newlines += content.count(b"\n") - len(kept)
            self.dropped(content.removesuffix(kept))
            self.parts = [kept]

    def rejoin(self, block: bytes) -> bytes:
        """The block, with the newline before it: a separator may stand across the border of two blocks."""
        if not self.parts or not self.parts[-1].endswith(b"\n"):
            return block
        last = self.parts.pop()
        self.size -= len(last)
        return last + block

    def take(self) -> tuple[bytes | None, int]:
        """The piece, or None if it is too long, and the newlines in it."""
        content = b"".join(self.parts)
        found = None if self.over else content, self.newlines + content.count(b"\n")
        self.clear()
        return found


def pieces(
    source: Iterable[bytes], separator: bytes = b"\n", dropped: Callable[[bytes], None] = lambda part: None
) -> Iterator[tuple[int, bytes | None]]:
    """What stands between separators (one or two newlines), each with the line where it begins, from 1.

    None in place of one that is longer than LIMIT: it is passed over. dropped: told its bytes.
    """
    held, line = _Held(dropped), 1
    for block in source:
        first, *others = held.rejoin(block).split(separator)
        held.add(first)
        if not others:
            continue
        content, newlines = held.take()
        yield line, content
        line += newlines + len(separator)
        for part in others[:-1]:
            if over := len(part) > LIMIT:
                dropped(part)
            yield line, None if over else part
            line += part.count(b"\n") + len(separator)
        held.add(others[-1])
    if held.size:
        yield line, held.take()[0]
