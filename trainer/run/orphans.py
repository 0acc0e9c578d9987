"""A worker does not outlive its launcher, however that dies."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

LAUNCHER = "TRAINER_LAUNCHER_PID"
"""Environment variable in which scripts/launch.py leaves its process id for its workers."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def follow_launcher() -> bool:
    """Ask the kernel for SIGTERM when the launcher dies, kill -9 included. False when it is dead already.

    Without scripts/launch.py, behind a wrapper of the user's, or on another system than Linux, nothing happens.
    """
    text = os.environ.get(LAUNCHER, "")
    launcher = int(text) if text.isdecimal() else 0
    if not launcher:
        return True
    if os.getppid() == launcher:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        except (OSError, AttributeError):
            return True
    return _lives(launcher)  # asked last: it may have died before the kernel knew our wish


def _lives(pid: int) -> bool:
    """Whether a process runs. One that has died, and whose parent has not asked for its code yet, still has its id."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has just gone, or the system has no /proc: then its id is all that we know
        return not Path("/proc/self/stat").exists()
    except PermissionError:  # another user's
        return True
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
