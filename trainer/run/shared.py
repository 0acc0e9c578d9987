"""Whether all ranks see the run's directory: it has to be one directory, on a file system that the nodes share."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from trainer.errors import ConfigError, Problem

NONCE = ".shared-"
SECONDS = 10.0
"""How long a file may take to appear on another node: NFS keeps what it knows of a directory for seconds."""


def leave_nonce(directory: Path, nonce: int) -> None:
    """On rank 0, first: a file that only those see who see this directory."""
    try:
        (directory / f"{NONCE}{nonce:x}").write_text(socket.gethostname(), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(directory, error) from error


def find_nonce(directory: Path, nonce: int, rank: int, seconds: float = SECONDS) -> None:
    """On every rank: see rank 0's file, and write and remove one beside it.

    Raises ConfigError for a directory that is another one here, or that this rank cannot write.
    """
    there, mine = directory / f"{NONCE}{nonce:x}", directory / f"{NONCE}{nonce:x}-{rank}"
    deadline = time.monotonic() + seconds
    while not there.is_file():
        if time.monotonic() > deadline:
            where = f"rank {rank} on {socket.gethostname()}, in {Path.cwd()}, does not see what rank 0 has written"
            rule = f"the same directory on every node; {where}"
            remedy = "run.root=<an absolute path on a file system that all nodes share>"
            raise ConfigError(Problem("run.root", str(directory), rule, remedy))
        # A listing makes an NFS client ask the server, where a look at the one name may be answered from memory.
        with suppress(OSError):
            list(directory.iterdir())
        time.sleep(0.05)
    try:
        mine.write_text("", encoding="utf-8")
        mine.unlink()
    except OSError as error:
        raise _cannot_write(directory, error) from error


def remove_nonce(directory: Path, nonce: int) -> None:
    """On rank 0, once all have looked."""
    with suppress(OSError):
        (directory / f"{NONCE}{nonce:x}").unlink()


def _cannot_write(directory: Path, error: OSError) -> ConfigError:
    rule = f"every rank can write there; on {socket.gethostname()}: {error.strerror}"
    return ConfigError(Problem("run.root", str(directory), rule, "restore access, or run.root=<another directory>"))
