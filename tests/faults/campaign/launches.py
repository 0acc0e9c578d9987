"""A launch of the trainer whose processes the campaign can signal at an instant of its choice.

One process has imported everything and computes nothing; it forks the ranks of each launch, so that one takes a second
or two. Another child serves the store, as torchrun's agent does: it outlives any rank.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch.distributed as dist

from tests.faults import injected
from trainer.run.signals import leave_when_asked

BEGUN = "begun\n"
"""A rank's first line: signals that stop it mean something from here on."""
LONGEST = 90.0
"""Seconds after which a launch hangs: its limits, and what finding out takes on a busy machine."""
PAUSE = 0.0002
"""Seconds between two looks at a launch: a rename and the removal after it are milliseconds apart."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Act = Callable[[], object]


class Hung(Exception):
    """A launch did not end, or did not come to an instant, in time."""


class Launch:
    """Context manager. Ranks that are still alive at its end are killed."""

    def __init__(self, overrides: list[str], processes: int, faults: Mapping[int, Act] | None = None) -> None:
        """faults: by rank, called before the trainer begins."""
        self.start = time.monotonic()
        self.codes: dict[int, int] = {}
        """Of the ranks that have ended: exit code, or minus the signal that killed it."""
        self._said = bytearray()
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_inheritable(writer, True)
        self._agent, port = _serve() if processes > 1 else (0, 0)
        self.pids = []
        for rank in range(processes):
            pid = os.fork()
            if not pid:
                _live(rank, processes, port, writer, overrides, (faults or {}).get(rank, lambda: None))
            self.pids.append(pid)
        os.close(writer)

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes:
                os.waitpid(pid, 0)
        if self._agent:
            os.kill(self._agent, signal.SIGKILL)
            os.waitpid(self._agent, 0)
        os.close(self._reader)

    @property
    def output(self) -> str:
        """What all ranks have printed."""
        return self._said.decode(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether all ranks have."""
        return len(self.codes) == len(self.pids)

    def begun(self) -> bool:
        """Whether all ranks listen to signals."""
        return self.output.count(BEGUN) == len(self.pids)

    def signal(self, number: int, *ranks: int) -> None:
        """Send a signal to some ranks, or to all that live."""
        for rank in ranks or range(len(self.pids)):
            if rank not in self.codes:
                os.kill(self.pids[rank], number)

    def watch(self, until: Callable[[], bool] = lambda: False, seconds: float = LONGEST) -> bool:
        """Wait for a condition; False where the launch has ended before. Raises Hung."""
        deadline = time.monotonic() + seconds
        while True:
            self._look()
            if until():
                return True
            if self.ended:
                return False
            if time.monotonic() > deadline:
                raise Hung(f"after {seconds:g} s; ended: {self.codes}\n{self.output[-4000:]}")
            time.sleep(PAUSE)

    def sleep(self, seconds: float) -> bool:
        """Let so much time pass; False where the launch has ended before."""
        end = time.monotonic() + seconds
        return self.watch(lambda: time.monotonic() >= end)

    def _look(self) -> None:
        """Take in what ranks have printed, and which have ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        with suppress(BlockingIOError):
            while data := os.read(self._reader, 1 << 16):
                self._said += data


def _serve() -> tuple[int, int]:
    """A child that serves a store; its process id and port."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _die_with_parent()
        store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        os.write(writer, str(store.port).encode())
        while True:
            time.sleep(3600)
    os.close(writer)
    port = int(os.read(reader, 10))
    os.close(reader)
    return pid, port


def _live(rank: int, processes: int, port: int, writer: int, overrides: list[str], inject: Act) -> None:
    """A rank's whole life; never returns."""
    code = 1
    try:
        _die_with_parent()
        leave_when_asked()
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        print(BEGUN, end="", flush=True)
        if processes > 1:
            size = str(processes)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        code = injected.enter(inject, overrides)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """Whatever happens to the campaign, no rank outlives it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
