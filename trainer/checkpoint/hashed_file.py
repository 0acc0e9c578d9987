"""A new file that is hashed while it is written: reading gigabytes again for their SHA-256 would take as long."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BLOCK = 8 << 20
"""Bytes that are written while the same bytes are hashed; a copy of part of a tensor takes no more."""


@dataclass(frozen=True)
class Written:
    """A file's size in bytes and its SHA-256, hexadecimal."""

    size: int
    sha256: str


def write_hashed(path: Path, data: Iterable[memoryview | bytes]) -> Written:
    """Write a new file and fsync it. Raises OSError, FileExistsError included."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # Both release the interpreter's lock, so that a block is hashed on one core while another writes it.
        with ThreadPoolExecutor(1, thread_name_prefix="hash") as other:
            for piece in data:
                for block in _blocks(memoryview(piece)):
                    hashed = other.submit(digest.update, block)
                    _write_all(descriptor, block)
                    _begin_writing_back(descriptor, size, len(block))
                    hashed.result()
                    size += len(block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(size, digest.hexdigest())


def write_synced(path: Path, data: Iterable[memoryview | bytes]) -> int:
    """The same without a hash, which some files have nowhere to be kept in; the file's size in bytes."""
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for piece in data:
            for block in _blocks(memoryview(piece)):
                _write_all(descriptor, block)
                _begin_writing_back(descriptor, size, len(block))
                size += len(block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def _blocks(data: memoryview) -> Iterable[memoryview]:
    return (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))


def _begin_writing_back(descriptor: int, start: int, length: int) -> None:
    """Send the block to the disk now: the kernel would let gigabytes gather, and all of fsync's time come at the end.

    Linux does so when told that the pages are not needed any more, and goes on at once.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


def _write_all(descriptor: int, block: memoryview) -> None:
    while block:
        block = block[os.write(descriptor, block) :]
