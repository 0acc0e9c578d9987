"""Is there room for what a save needs, on the disk and in the host's memory? Asked before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoint.background import buffer_bytes
from trainer.checkpoint.names import checkpoints
from trainer.checkpoint.pieces import file_header
from trainer.checkpoint.save import parts_of
from trainer.checkpoint.sizes import in_bytes, size_of
from trainer.errors import ConfigError, Problem
from trainer.parallel.boxes import Store

SPARED = 0.1
"""Of the available memory, left to everything else."""
_MEMORY, _CGROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True)
class Needs:
    """Of one rank, in bytes.

    written: to disk, for each checkpoint. buffer: host memory for saves beside training.
    """

    written: int
    buffer: int


def needs(store: Store) -> Needs:
    """What this rank's part of a save needs."""
    parts = parts_of(store)
    written = sum(len(file_header(found)) + sum(piece.bytes for piece in found) for found in parts.values() if found)
    return Needs(written, buffer_bytes(parts))


def refuse_too_little_room(directory: Path, checkpoint_bytes: int, keep: int, best: bool = False) -> None:
    """Raise ConfigError (run.root) when the disk cannot hold the checkpoints that are kept, and one being written.

    checkpoint_bytes: of all ranks. keep: 0 keeps all, of which there is at least one. best: the best one stays beside
    them. What the run has saved already counts as room: retention removes it. Local; meant for rank 0.
    """
    keep = keep and keep + best
    kept = checkpoints(directory)
    held = [size_of(path) for path in kept[: keep or len(kept)]]
    wanted = checkpoint_bytes * (keep + 1) if keep else checkpoint_bytes * (1 + len(held))
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if wanted <= free + sum(held):
        return
    keys = "checkpoint.keep and evaluation.best keep" if best else "checkpoint.keep keeps"
    many = f"the {keep} that {keys} and the one being written" if keep else "the next one"
    rule = (
        f"has room for checkpoints of {in_bytes(checkpoint_bytes)}: {in_bytes(wanted - sum(held))} for {many}; "
        f"{in_bytes(free)} are free"
    )
    remedy = "make room, put run.root on another disk, or lower checkpoint.keep"
    raise ConfigError(Problem("run.root", str(directory), rule, remedy))


def why_synchronous(buffers: int, available: int) -> str | None:
    """A line when saves beside training do not fit this host's memory; None when they do.

    buffers: bytes of all ranks on this host. available: see available_memory.
    """
    if buffers <= available * (1 - SPARED):
        return None
    return (
        f"saves hold up training: a copy beside it takes {in_bytes(buffers)} of this host's memory, "
        f"and {in_bytes(available)} are available"
    )


def available_memory() -> int | None:
    """Bytes that this host can give: what the kernel calls available, or what its cgroup leaves; None if unknown."""
    found = [left for left in (_of_kernel(), *_of_cgroups()) if left is not None]
    return min(found, default=None)


def _of_kernel() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _of_cgroups() -> Iterator[int]:
    """What the limits of this process's cgroup and those above it leave. A page cache gives way, and counts as free."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers in ("", "memory"):
            root = _CGROUPS / controllers
            names = _V1 if controllers else _V2
            below = root / path.lstrip("/")
            for group in (below, *below.parents):
                if (left := _left(group, *names)) is not None:
                    yield left
                if group == root:
                    break


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(stat.get(cache, 0)))
    except (OSError, ValueError):  # no limit is "max", or no file
        return None
