"""A save beside training: one copy into memory of its own, and a thread that writes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trainer.checkpoint.pieces import Piece
from trainer.checkpoint.write import Parts
from trainer.errors import RunError

ALIGNMENT = 64
"""Bytes: where a part begins in the buffer."""


@dataclass(frozen=True)
class Finished:
    """A background save that has ended.

    seconds: from the copy to the commit. bytes: that this rank wrote. error: why there is no checkpoint, if so.
    """

    step: int
    path: Path
    seconds: float
    bytes: int
    error: RunError | None = None


def buffer_bytes(parts: Parts) -> int:
    """Host memory that a copy of the pieces takes."""
    return sum(_aligned(sum(piece.bytes for piece in found)) for found in parts.values())


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class HostBuffer:
    """Memory for one copy, allocated once: a copy into fresh pages takes several times as long."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes, and touch them."""
        if len(self._memory) < size:
            self._memory = torch.empty(0, dtype=torch.uint8)  # let go of the old first
            self._memory = torch.empty(size, dtype=torch.uint8).fill_(0)

    def take(self, parts: Parts) -> Mapping[str, Sequence[Piece]]:
        """The same pieces with a copy of their values, which lives until the next call."""
        self.reserve(buffer_bytes(parts))
        copied: dict[str, list[Piece]] = {}
        at = 0
        for part, found in parts.items():
            copied[part] = []
            for piece in found:
                memory = self._memory[at : at + piece.bytes]
                values = memory.view(piece.values.dtype).view(piece.box.sizes)
                values.copy_(piece.values)
                copied[part].append(replace(piece, values=values))
                at += piece.bytes
            at = _aligned(at)
        return copied


class Flight:
    """A save in a thread. work: writes it; returns its bytes, or raises a RunError."""

    def __init__(self, step: int, path: Path, work: Callable[[], int], since: float) -> None:
        """since: time.perf_counter() when the save began."""
        self._finished = Finished(step, path, 0.0, 0)
        self._work, self._since = work, since
        self._bug: BaseException | None = None
        # A daemon: a process that fails must be able to end, and what it leaves is a directory of no name.
        self._thread = threading.Thread(target=self._run, name=f"save-{step}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread is done. Never waits."""
        return not self._thread.is_alive()

    def land(self) -> Finished:
        """Wait for the thread. A failure that is no RunError is a bug, and raised here with its own traceback."""
        self._thread.join()
        if self._bug is not None:
            raise self._bug
        return self._finished

    def _run(self) -> None:
        written, error = 0, None
        try:
            written = self._work()
        except RunError as failure:
            error = failure
        except BaseException as failure:
            self._bug = failure
        seconds = time.perf_counter() - self._since
        self._finished = replace(self._finished, seconds=seconds, bytes=written, error=error)
