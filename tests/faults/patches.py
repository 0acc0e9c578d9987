"""Ways to put something in front of, or in place of, a function of the trainer: what injected faults are made of."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIGNALLED = "signalled"
"""File that holds the time of a signal."""


def patch(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    def inject() -> None:
        setattr(owner, name, around(getattr(owner, name)))

    return inject


def at(owner: Any, name: str, call: int, act: Callable[[], object]) -> Callable[[], None]:
    """Do something first, at one call of a function."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def acting(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                act()
            return original(*args, **kwargs)

        return acting

    return patch(owner, name, around)


def delayed(original: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return original(*args, **kwargs)

    return slowly


def signal_in(owner: Any, name: str, call: int, after: float) -> Callable[[], None]:
    """SIGTERM to this process, so many seconds into a call of a function."""

    def told() -> None:
        Path(SIGNALLED).write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGTERM)

    return at(owner, name, call, lambda: threading.Timer(after, told).start())


def stop_in(owner: Any, name: str, call: int = 1) -> Callable[[], None]:
    """SIGSTOP to itself at a call of a function."""
    return at(owner, name, call, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def killed_in(owner: Any, name: str, call: int) -> Callable[[], None]:
    """SIGKILL, as the kernel sends it to a process that takes too much memory."""
    return at(owner, name, call, lambda: os.kill(os.getpid(), signal.SIGKILL))


def stuck_in(owner: Any, name: str, call: int = 1) -> Callable[[], None]:
    """Sleeps for ever at a call of a function: alive, and its threads too."""
    return at(owner, name, call, lambda: time.sleep(3600))
