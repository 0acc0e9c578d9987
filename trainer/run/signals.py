"""Signals that ask a run to stop: remembered here, acted on at the next step boundary, when all ranks agree."""

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
"""TERM: the scheduler takes the machine. INT: a person. USR1, USR2: its early warning. HUP: the terminal is gone."""


_training = threading.Event()
"""A training loop runs, and acts on signals at the end of a step."""


class _Signals:
    """What handlers have noted. Plain values: a handler may interrupt another, and a lock would wait for itself."""

    asked = False
    """A stopping signal has come."""
    reporting = False
    """How a job ended is being told; a signal changes nothing about it."""
    raised = False
    """It has raised KeyboardInterrupt. A library may swallow that, or raise something else on its account."""


class StopRequest:
    """Context manager; ``requested`` turns true when a stopping signal arrives. A second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> StopRequest:
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: whoever started the run wants it to go on
            self._previous[number] = signal.signal(number, self._remember)
        self._wakeup = signal.set_wakeup_fd(-1)  # a step that saves takes the time it takes
        _training.set()
        if _Signals.raised:  # and was swallowed; read after the handlers, so that none slips through between
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
    """Until somebody else takes the signals over: end the process with exit code 10. There is nothing to save yet."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _, __: os._exit(int(ExitCode.PREEMPTED)))


def end_outside_training(seconds: float, report: Callable[[], object]) -> None:
    """Before and after training a stopping signal is a KeyboardInterrupt, or where none can be, a report and exit 10.

    None can be in the middle of an import: one raised through the initialisation of a C extension aborts the process.
    Nor where the main thread waits in C, for a peer that is gone (gloo, while it connects): such a process leaves after
    ``seconds``, and so does one that has swallowed the exception. More signals do not disturb one that tidies up.
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
        """A KeyboardInterrupt in a callback that can raise nothing is worth no traceback: the signal is known."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            told(unraisable)

    sys.unraisablehook = quiet


def stop_was_asked() -> bool:
    """Whether a stopping signal has come since `end_outside_training`, in training or outside."""
    return _Signals.asked


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A stopping signal does not disturb the block; outside training."""
    was = _Signals.reporting
    _Signals.reporting = True
    try:
        yield
    finally:
        if not was:
            _Signals.reporting = False


def ignore_signals() -> None:
    """The exit code is decided, and this process ends: Python, which forgets its handlers then, keeps to what it is."""
    signal.set_wakeup_fd(-1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_shown() -> Iterator[None]:
    """Whatever ends the block once a stopping signal has interrupted it is a KeyboardInterrupt.

    A library's ``finally`` that meets a state half made raises an error of its own, which says nothing about the run;
    it is the interrupt's cause.
    """
    try:
        yield
    except Exception as error:
        if _Signals.raised:
            raise KeyboardInterrupt from error
        raise


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way at this point of the main thread."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave_within(seconds: float, leave: Callable[[], object]) -> None:
    """Watch for signals in C, where a Python handler would wait for the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while byte := os.read(reader, 1):
            if byte[0] in STOPPING and not _training.wait(seconds):
                leave()

    threading.Thread(target=watch, name="leave", daemon=True).start()
