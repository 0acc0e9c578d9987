"""Ends a worker when its launcher dies, kill -9 included."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

LAUNCHER = "TRAINER_LAUNCHER_PID"
"""Environment variable in which scripts/launch.py leaves its process id for its workers."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def follow_launcher() -> bool:
    """Ask the kernel for SIGTERM when the launcher dies. False when it is dead already.

    Without scripts/launch.py, behind a user's wrapper, or on another system than Linux, no signal will come.
    """
    text = os.environ.get(LAUNCHER, "")
    launcher = int(text) if text.isdecimal() else 0
    if not launcher:
        return True
    if os.getppid() == launcher and not end_with_parent():
        return True
    return _lives(launcher)  # checked last: it may have died before prctl took effect


def end_with_parent() -> bool:
    """Ask the kernel to send this process SIGTERM when its parent ends. False where the system cannot."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        return False
    return True


def _lives(pid: int) -> bool:
    """Whether a process is running. A zombie, which its parent has not waited for yet, still has its id."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has just ended, or without /proc all we know is that the id exists
        return not Path("/proc/self/stat").exists()
    except PermissionError:  # it belongs to another user
        return True
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
