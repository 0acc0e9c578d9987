"""Independent pieces of work side by side: torch keeps one world a process, so each gets a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from trainer.errors import ConfigError, Problem, RunError

T = TypeVar("T")


def in_processes(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Results in order. One task runs here; several in forks, which inherit what was imported, one a core at a time.

    Raises what the first task to fail raised.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    context = multiprocessing.get_context("fork")
    results: dict[int, T] = {}
    waiting = list(enumerate(tasks))
    running: dict[Connection, tuple[int, multiprocessing.context.ForkProcess]] = {}
    while waiting or running:
        while waiting and len(running) < cores():
            index, task = waiting.pop(0)
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(task, sending), daemon=True)
            process.start()
            sending.close()
            running[receiving] = (index, process)
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            index, process = running.pop(ready)
            try:
                outcome = ready.recv()
            except EOFError:
                process.join()
                rule = f"a process that lives to the end; it ended with {process.exitcode} (-9: no memory?)"
                raise ConfigError(
                    Problem("rehearsal.rank", None, rule, "rehearse one rank at a time: rehearsal.rank=0")
                ) from None
            process.join()
            if isinstance(outcome, _Failure):
                raise outcome.kind(outcome.contents)
            results[index] = outcome
    return [results[index] for index in range(len(tasks))]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _Failure(NamedTuple):
    """An exception on its way: its class and what to make it from (unpickled by itself, a RunError is but text)."""

    kind: type[Exception]
    contents: Any


def _forget_handlers() -> None:
    """A signal ends a fork as it ends any program: to report a stop is for the parent, whose handlers these are."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _work(task: Callable[[], T], sending: Connection) -> None:
    _forget_handlers()
    try:
        sending.send(task())
    except RunError as error:
        sending.send(_Failure(type(error), error.problems))
    except Exception as error:
        sending.send(_Failure(RuntimeError, f"{type(error).__name__}: {error}"))
        raise  # the traceback would be lost on the way
