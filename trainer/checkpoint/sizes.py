"""Bytes of a checkpoint, and bytes for people."""

from __future__ import annotations

from pathlib import Path


def size_of(checkpoint: Path) -> int:
    """Bytes of its files."""
    return sum(path.lstat().st_size for path in checkpoint.rglob("*") if path.is_file())


def in_bytes(count: int) -> str:
    """As "4.2 GB"; 1 GB is 10^9 bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
