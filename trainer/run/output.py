"""Output that nobody reads any more: a terminal that was closed, a pipe whose reader has left. The program goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


class LossyStream:
    """A text stream that drops what cannot be written, from then on: to whom would the error be told?"""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of the stream, without OSError."""
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As of the stream, without OSError."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As of the stream, without OSError."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """What the stream still holds goes to the null device, with all that follows."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """From now on no loss of this process's output is an error, as in: train.py ... | head; or a terminal closed."""
    if not isinstance(sys.stdout, LossyStream):
        sys.stdout = cast(TextIO, LossyStream(sys.stdout))
    if not isinstance(sys.stderr, LossyStream):
        sys.stderr = cast(TextIO, LossyStream(sys.stderr))
