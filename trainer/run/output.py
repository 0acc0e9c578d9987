"""Keeps the process running when its output has no reader any more: a closed terminal, or a pipe without a reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


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
