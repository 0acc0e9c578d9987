"""A process that is told from a later one with the same id: by when it started, on which machine, in which boot."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_START_TICKS = 19
"""Place of starttime among the fields of /proc/PID/stat that follow the name (proc(5): field 22)."""


@dataclass(frozen=True)
class ProcessId:
    """A process of one boot of one machine. start: clock ticks since that boot."""

    pid: int
    start: int
    host: str
    boot: str

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, of this machine."""
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether it runs. Only this machine can tell; a zombie does not."""
        return self.is_here and self.boot == _boot() and start_ticks(self.pid) == self.start

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it has ended. A process that has got its id since is never hit."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.lives:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def process_of(pid: int) -> ProcessId | None:
    """A process of this machine; None where it has ended."""
    start = start_ticks(pid)
    return None if start is None else ProcessId(pid, start, socket.gethostname(), _boot())


def start_ticks(pid: int) -> int | None:
    """When it started, in clock ticks since the boot; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_START_TICKS])


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
