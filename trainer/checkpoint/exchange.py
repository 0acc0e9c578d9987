"""How the ranks of a save tell each other what they did: bytes over a process group of the host, and no pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


class WriteError(OSError):
    """A rank could not write. The message names the ranks and the operating system's reasons; all ranks raise it."""


class LostRank(RuntimeError):
    """A rank ended, or did not arrive before the group's timeout."""


class Exchange:
    """The ranks of a group, or this process alone. All ranks call the same methods in the same order.

    Raises LostRank where a rank does not take part.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        """group: of all ranks, over gloo; None: the default one, or one process. Its timeout limits every wait."""
        together = dist.is_available() and dist.is_initialized()
        self._group = group
        self.size = dist.get_world_size(group) if together else 1
        self.rank = dist.get_rank(group) if together else 0

    def lead(self, action: Callable[[], None]) -> None:
        """Run an action on rank 0. When it fails, every rank raises: WriteError for an OSError."""
        failure: Exception | None = None
        if self.rank == 0:
            try:
                action()
            except Exception as error:
                failure = error
        said = self._from_rank_zero(said_of(failure))
        if failure is not None and not isinstance(failure, OSError):
            raise failure
        raise_said(said)

    def send(self, mine: bytes) -> None:
        """Tell rank 0, which is to call ``received`` meanwhile. On the other ranks only."""
        with _waiting():
            dist.send(torch.tensor([len(mine)]), group=self._group, group_dst=0)
            dist.send(_tensor(mine), group=self._group, group_dst=0)

    def received(self, mine: bytes) -> Iterator[bytes]:
        """What each rank says, in order, this one first. On rank 0 only; it holds one rank's at a time."""
        yield mine
        for rank in range(1, self.size):
            with _waiting():
                length = torch.zeros(1, dtype=torch.int64)
                dist.recv(length, group=self._group, group_src=rank)
                data = torch.empty(int(length.item()), dtype=torch.uint8)
                dist.recv(data, group=self._group, group_src=rank)
            yield data.numpy().tobytes()

    def _from_rank_zero(self, said: bytes) -> bytes:
        if self.size == 1:
            return said
        length = torch.tensor([len(said)])
        with _waiting():
            dist.broadcast(length, group=self._group, group_src=0)
            if not length.item():
                return b""
            data = torch.empty(int(length.item()), dtype=torch.uint8) if self.rank else _tensor(said)
            dist.broadcast(data, group=self._group, group_src=0)
        return data.numpy().tobytes()


@contextmanager
def _waiting() -> Iterator[None]:
    """Whatever the group raises while ranks wait for each other is a lost rank: gloo has no error of its own."""
    try:
        yield
    except RuntimeError as error:
        raise LostRank(str(error)) from error


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def said_of(failure: Exception | None) -> bytes:
    """What other ranks hear of a failure: nothing without one; "D" before a disk's, "B" before a bug's."""
    if failure is None:
        return b""
    if isinstance(failure, OSError):
        return f"D{failure}".encode()
    return f"B{type(failure).__name__}: {failure}".encode()


def raise_said(said: bytes) -> None:
    """Raise what another rank said of its failure, or nothing."""
    kind, text = said[:1], said[1:].decode()
    if kind == b"D":
        raise WriteError(text)
    if kind == b"B":
        raise RuntimeError(f"a save failed on another rank: {text}")
