"""Tokens that arrive one by one, as text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.generation.words import Words

BROKEN = "\ufffd"
"""What decoders write for bytes that are no character yet."""
BEFORE = 6
"""Tokens of the prompt that are decoded along: a first token's space depends on what stands before it."""


class TextStream:
    """Text of an answer, a token at a time.

    Decoding starts a few tokens back and not at the beginning, so that a long answer costs no more for each token.
    """

    def __init__(self, words: Words, prompt: Sequence[int]) -> None:
        self._words, self._ids = words, list(prompt[-BEFORE:])
        self._from, self._whole = 0, len(self._ids)
        self._told = len(words.decode(self._ids))
        """Characters of the tokens from ``_from`` on that are told."""

    def push(self, token: int) -> str:
        """The characters that this token completes; often none."""
        self._ids.append(token)
        now = self._words.decode(self._ids[self._from :])
        told = now.rstrip(BROKEN)[self._told :]
        if now.endswith(BROKEN):
            self._told += len(told)
        else:
            self._from, self._whole = self._whole, len(self._ids)
            self._told = len(self._words.decode(self._ids[self._from :]))
        return told

    def rest(self) -> str:
        """What is left at the end: bytes that never became a character."""
        return self._words.decode(self._ids[self._from :])[self._told :]


class StopStrings:
    """Holds back what may become a stop string, wherever tokens begin and end."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What is certain to stand before any stop string; ``found`` is set once one has come."""
        if self.found is not None:
            return ""
        self._held += text
        places = [(place + len(stop), place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            # The one that is complete first: so it does not matter which characters a token brings together.
            _, place, self.found = min(places)
            return self._held[:place]
        kept = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        told, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return told

    def rest(self) -> str:
        """What was held back and has become no stop string."""
        return "" if self.found is not None else self._held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text with which the stop string begins."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
