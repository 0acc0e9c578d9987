"""What a command is told on standard input, as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.errors import DataError, Problem

KEY = "standard input"
REMEDY = "convert it to UTF-8"


def read_prompts(lines: bool) -> Iterator[str]:
    """All of standard input as one prompt, or each line as one. Raises DataError where it is no text."""
    if _typed():
        print("type a prompt, then Ctrl-D:", file=sys.stderr)
    data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    text = _decoded(data).removesuffix("\n")
    # Not str.splitlines, which also cuts at characters inside a line.
    yield from (text.split("\n") if lines else [text])


def read_line() -> list[str]:
    """One line, or none at the end. Raises DataError where it is no text."""
    if _typed():
        print("> ", end="", file=sys.stderr, flush=True)
    data = b"" if sys.stdin is None else sys.stdin.buffer.readline()
    return [_decoded(data).rstrip("\r\n")] if data else []


def refuse_surrogates(key: str, text: str) -> None:
    """An argument that is no UTF-8 reaches Python in a form that no tokenizer takes. Raises DataError."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(Problem(key, ascii(text)[:60], "is text in UTF-8", REMEDY)) from None


def _typed() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = data[max(0, error.start - 10) : error.start + 1]
        raise DataError(Problem(KEY, shown, f"is text in UTF-8; byte {error.start:,} is not", REMEDY)) from None
