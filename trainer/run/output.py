"""Keeps the process running when its output has no reader any more: a closed terminal, or a pipe without a reader."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

CPP_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Import torch in the block, and its C++ side prints errors only, unless the user has chosen otherwise.

    Else a store that is gone, which we report in a line, is pages of C++ frames. Child processes are not affected:
    torch reads the variable once.
    """
    if CPP_LOG_LEVEL in os.environ:
        yield
        return
    os.environ[CPP_LOG_LEVEL] = "ERROR"
    try:
        yield
    finally:
        del os.environ[CPP_LOG_LEVEL]


class LossyStream:
    """A text stream that drops its output from the first OSError on: the error could not be shown either.

    lost: that error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """The stream's write, without OSError."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """The stream's writelines, without OSError."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """The stream's flush, without OSError."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Send buffered and later output to the null device."""
        self.lost = self.lost or error
        _nowhere(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Ignore write errors of stdout and stderr from now on, as in train.py ... | head or on a closed terminal.

    Characters that the terminal's encoding lacks are escaped; one of the two that was closed from the start takes
    everything and shows nothing.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, LossyStream):
            continue
        if stream is None:
            _nowhere(descriptor)
            stream = open(descriptor, "w", closefd=False)  # noqa: SIM115 - as long as the process
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, LossyStream(stream)))


def lost_output() -> OSError | None:
    """Why standard output has not arrived whole; None where it has."""
    sys.stdout.flush()
    return sys.stdout.lost if isinstance(sys.stdout, LossyStream) else None


def _nowhere(descriptor: int) -> None:
    """Make it the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
