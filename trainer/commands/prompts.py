"""What a command is told on standard input, as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.errors import DataError, Problem

KEY = "standard input"
REMEDY = "convert it to UTF-8"


def read_prompts(lines: bool) -> Iterator[str]:
    """All of standard input as one prompt, or each line as one; whether lines end as on Unix or on Windows.

    Raises DataError where it is no text.
    """
    if _typed():
        print("type a prompt, then Ctrl-D:", file=sys.stderr)
    text = _decoded(_read(-1)).removesuffix("\n")
    # Not str.splitlines, which also cuts at characters inside a line.
    yield from (line.removesuffix("\r") for line in (text.split("\n") if lines else [text]))


def read_line() -> list[str]:
    """One line, or none at the end. Raises DataError where it is no text."""
    if _typed():
        print("> ", end="", file=sys.stderr, flush=True)
    data = _read(None)
    return [_decoded(data).rstrip("\r\n")] if data else []


def not_text(key: str, text: str) -> Iterator[Problem]:
    """An argument that is no UTF-8 reaches Python in a form that no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        yield Problem(key, ascii(text)[:60], "is text in UTF-8", REMEDY)


def _typed() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _read(size: int | None) -> bytes:
    """So many bytes, -1 for all; None for a line. Closed from the start, it is empty."""
    try:
        if sys.stdin is None:
            return b""
        return sys.stdin.buffer.readline() if size is None else sys.stdin.buffer.read(size)
    except OSError as error:
        rule = f"can be read ({error.strerror})"
        raise DataError(Problem(KEY, "", rule, "give --prompt, or a file or pipe that can be read")) from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown = data[max(0, error.start - 10) : error.start + 1]
        raise DataError(Problem(KEY, shown, f"is text in UTF-8; byte {error.start:,} is not", REMEDY)) from None
