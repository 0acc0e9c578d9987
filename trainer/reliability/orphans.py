"""A worker does not outlive its launcher, however that dies."""

from __future__ import annotations

import ctypes
import os
import signal

LAUNCHER = "TRAINER_LAUNCHER_PID"
"""Environment variable in which scripts/launch.py leaves its process id for its workers."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def follow_launcher() -> bool:
    """Ask the kernel for SIGTERM when the launcher dies, kill -9 included. False when it is dead already.

    Without scripts/launch.py, behind a wrapper of the user's, or on another system than Linux, nothing happens.
    """
    text = os.environ.get(LAUNCHER, "")
    launcher = int(text) if text.isdecimal() else 0
    if launcher and os.getppid() == launcher:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        except (OSError, AttributeError):
            return True
    try:
        os.kill(launcher or os.getpid(), 0)
    except ProcessLookupError:
        return False
    return True
