"""Ranks as forks of one process that has imported torch, and that never computes itself.

Importing torch in every rank is nine tenths of the time that a tiny run under torchrun takes. Runs in an order leave
nothing to one another: each has processes of its own, and what a fault patches ends with them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS = 300


def launch(logs: Path, size: int, work: Callable[[], None]) -> float:
    """Do the work in ``size`` ranks, each with torchrun's environment and its output in ``logs``/rank-N.log.

    When one fails, the others, which may wait for it for ever, are ended. Seconds it took.
    """
    logs.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    alive: set[int] = set()
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os._exit(_rank(logs / f"rank-{rank}.log", rank, size, port, work))
        alive.add(pid)
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        alive.discard(pid)
        if (pid and status) or time.monotonic() > start + SECONDS:
            for other in alive:
                os.kill(other, signal.SIGKILL)
        elif not pid:
            time.sleep(0.01)
    return time.monotonic() - start


def _rank(log: Path, rank: int, size: int, port: int, work: Callable[[], None]) -> int:
    """A rank's whole life; its exit code. A log that is not empty tells of an error."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        work()
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
