"""The process beside a local job: it outlives who submitted it, passes signals on, keeps the limits, and notes the end.

Started by trainer.launchers.local, which has written the job's script and holds the lock of its name. Light: no torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from trainer.errors import ExitCode
from trainer.files import write_json
from trainer.launchers.pids import process_of
from trainer.run.orphans import end_with_parent
from trainer.run.signals import STOPPING

END = "end.json"
POLL_SECONDS = 0.05
KILL_AFTER_GRACE = 10.0
"""scripts/launch.py takes a few seconds more than the grace to end its workers and to say why."""


@dataclass(frozen=True)
class Asked:
    """What trainer.launchers.local asks for, as JSON on the command line."""

    record: str
    """File of the register that says who runs the job."""
    directory: str
    script: str
    grace_seconds: float
    limit_seconds: float | None
    lock: int
    """File descriptor of the name's lock; closed as soon as the record is there."""


class Watch:
    """One job, from its start to the note of its end."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped_by: list[str] = []
        self._handed_on: set[int] = set()
        self._kill_at = float("inf")
        self._stop_at = time.monotonic() + asked.limit_seconds if asked.limit_seconds is not None else float("inf")
        for number in STOPPING:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._stop(number, signal.Signals(number).name)

    def _stop(self, number: int, why: str) -> None:
        """Pass a signal on; the first one starts the grace."""
        self._handed_on.add(number)
        self.stopped_by.append(why)
        if self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + self.asked.grace_seconds + KILL_AFTER_GRACE
        if self.child is not None and self.child.returncode is None:
            self.child.send_signal(number)

    def record(self) -> None:
        """Say which processes these are."""
        pids = {"watch": os.getpid(), "job": self.child.pid if self.child is not None else None}
        found = {name: process_of(pid) if pid is not None else None for name, pid in pids.items()}
        processes = {name: asdict(process) if process is not None else None for name, process in found.items()}
        write_json(Path(self.asked.record), {"directory": self.asked.directory, "time": time.time(), **processes})

    def run(self) -> None:
        """Start the job, wait for all of its processes, note the end."""
        if not self.stopped_by:
            # A session of its own, so that all of its processes can be killed and this one stays.
            self.child = subprocess.Popen(
                ["bash", self.asked.script], start_new_session=True, preexec_fn=end_with_parent
            )
            if self.stopped_by:  # while it was being started
                self.child.terminate()
            self.record()
            self._wait(self.child)
        code = self.child.returncode if self.child is not None else -signal.SIGTERM
        if -code in self._handed_on or self.child is None:  # before anything could be lost
            code = int(ExitCode.PREEMPTED)
        end = {"code": code if code >= 0 else 128 - code, "stopped_by": self.stopped_by, "time": time.time()}
        write_json(Path(self.asked.directory, END), end)

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        """Until no process of its session is left. Workers whose launcher was killed still save."""
        while child.poll() is None or _has_members(child.pid):
            now = time.monotonic()
            if now > self._stop_at:
                self._stop_at = float("inf")
                self._stop(signal.SIGTERM, "launcher.limit_minutes")
            if child.returncode is not None and self._kill_at == float("inf"):
                self._kill_at = now + self.asked.grace_seconds + KILL_AFTER_GRACE
            if now > self._kill_at:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)


def _has_members(group: int) -> bool:
    """Whether a process group has a process, which a zombie is too until it is waited for."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        fields[2] == str(group) and fields[0] not in "ZX"
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(stat))
    )


def _fields(stat: Path) -> list[str]:
    with suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()
    return []


def main() -> int:
    """Leave the submitter's session; return to it when the job is recorded."""
    asked = Asked(**json.loads(sys.argv[1]))
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) else 1
    os.setsid()
    watch = Watch(asked)
    watch.record()
    os.close(asked.lock)
    os.write(writer, b"1")
    os.close(writer)
    watch.run()
    return 0


if __name__ == "__main__":
    os._exit(main())
