"""Signals that ask a run to stop: recorded here, acted on at the next step boundary, when all ranks agree."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from trainer.errors import ExitCode

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""TERM: from the scheduler. INT: Ctrl-C. USR1, USR2: the scheduler's early warning. HUP: the terminal was closed."""


_training = threading.Event()
"""Set while a training loop runs, which acts on signals at the end of a step."""


class _Signals:
    """State set by handlers. Plain values: a handler may interrupt another, and with a lock they would deadlock."""

    asked = False
    """A stopping signal has arrived."""
    reporting = False
    """The end of a job is being reported; a signal does not interrupt it."""
    raised = False
    """A handler has raised KeyboardInterrupt. A library may swallow that, or raise another exception because of it."""


class StopRequest:
    """Context manager; ``requested`` turns true when a stopping signal arrives. A second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> StopRequest:
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # as under nohup: the run is meant to go on
            self._previous[number] = signal.signal(number, self._remember)
        self._wakeup = signal.set_wakeup_fd(-1)  # no deadline in training: a step may save for long
        _training.set()
        if _Signals.raised:  # and was swallowed; read after setting the handlers, so that no signal is missed
            self.requested = True
            _Signals.raised = False
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        _Signals.asked = True
        if self.requested and number == signal.SIGINT:
            _Signals.raised = True
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _training.clear()
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def leave_when_asked() -> None:
    """Exit with code 10 on a stopping signal, until other handlers are set: there is nothing to save yet."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _, __: os._exit(int(ExitCode.PREEMPTED)))


def end_outside_training(seconds: float, report: Callable[[], object]) -> None:
    """Outside training, turn a stopping signal into a KeyboardInterrupt, or where that fails into a report and exit 10.

    During an import the process exits at once: an exception through the initialisation of a C extension aborts it. If
    the main thread waits in C (gloo, connecting to a dead peer) or a library has swallowed the exception, the process
    exits after ``seconds``. Further signals do not interrupt its cleanup.
    """

    _training.clear()
    _Signals.asked = _Signals.reporting = _Signals.raised = False

    def leave() -> None:
        try:
            report()
        finally:
            os._exit(int(ExitCode.PREEMPTED))

    def interrupt(number: int, frame: FrameType | None) -> None:
        _Signals.asked = True
        if _Signals.raised or _Signals.reporting:
            return
        _Signals.raised = True
        if _imports(frame):
            leave()
        raise KeyboardInterrupt

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    _leave_within(seconds, leave)
    told = sys.unraisablehook

    def quiet(unraisable: sys.UnraisableHookArgs) -> None:
        """Print no traceback for a KeyboardInterrupt in a callback that cannot raise: the signal is recorded."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            told(unraisable)

    sys.unraisablehook = quiet


def stop_was_asked() -> bool:
    """Whether a stopping signal has arrived since `end_outside_training`, in training or outside."""
    return _Signals.asked


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Run the block without interruption by stopping signals; for use outside training."""
    was = _Signals.reporting
    _Signals.reporting = True
    try:
        yield
    finally:
        if not was:
            _Signals.reporting = False


def ignore_signals() -> None:
    """Ignore stopping signals until the process ends: Python drops its handlers first, and exit codes would change."""
    signal.set_wakeup_fd(-1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_shown() -> Iterator[None]:
    """Raise KeyboardInterrupt for any exception that ends the block after a stopping signal has interrupted it.

    A library's ``finally`` may find incomplete state and raise an error of its own, which says nothing about the run;
    it becomes the interrupt's cause.
    """
    try:
        yield
    except Exception as error:
        if _Signals.raised:
            raise KeyboardInterrupt from error
        raise


def _imports(frame: FrameType | None) -> bool:
    """Whether the main thread is importing a module at this point."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave_within(seconds: float, leave: Callable[[], object]) -> None:
    """Call ``leave`` if training has not begun ``seconds`` after a signal.

    Signals come through a pipe that CPython's C handler writes: a Python handler would wait for the main thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while byte := os.read(reader, 1):
            if byte[0] in STOPPING and not _training.wait(seconds):
                leave()

    threading.Thread(target=watch, name="leave", daemon=True).start()
