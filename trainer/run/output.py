"""Keeps the process running when its output has no reader any more: a closed terminal, or a pipe without a reader."""

from __future__ import annotations

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
    """A text stream that drops its output from the first OSError on: the error could not be shown either."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """The stream's write, without OSError."""
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """The stream's writelines, without OSError."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """The stream's flush, without OSError."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Send buffered and later output to the null device."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Ignore write errors of stdout and stderr from now on, as in train.py ... | head or on a closed terminal."""
    if not isinstance(sys.stdout, LossyStream):
        sys.stdout = cast(TextIO, LossyStream(sys.stdout))
    if not isinstance(sys.stderr, LossyStream):
        sys.stderr = cast(TextIO, LossyStream(sys.stderr))
