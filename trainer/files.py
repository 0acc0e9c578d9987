"""Writes that survive a crash: whole or not at all, and on the disk when the call returns."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def is_directory_name(name: str) -> bool:
    """Whether a name can be a directory's, inside another and nowhere else."""
    plain = name not in ("", ".", "..") and "/" not in name and "\0" not in name and name == name.strip()
    return plain and len(name.encode()) <= 200


def temporary_of(path: Path) -> Path:
    """The neighbour that a file is written to before it has its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomically(path: Path, text: str) -> None:
    """Write a temporary neighbour, fsync it, rename it over ``path``, fsync the directory. A failure leaves nothing."""
    temporary = temporary_of(path)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented JSON."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """fsync a file or a directory: a rename is durable only once its directory is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
