r"""Where a long document may be cut so that its pieces have, end to end, exactly the ids of the whole.

A tokenizer normalises text, splits it into words, and gives each word its ids by itself. So a cut changes nothing where
the whole text is split anyway, if both sides are split as they were. It is made at one of three places:

1. before a single blank between two characters that are none;
2. before one mark of punctuation between two letters;
3. behind a line's end that stands alone.

All patterns in use (GPT-2's, Llama 3's, DeepSeek's, Qwen's) are alternatives of runs of one class of characters, with
one character of another class before or line ends behind at the most, and look ahead over a run of blanks at the
most. A match is found from the left and depends on nothing before it. At these places every run that reaches the cut
ends there, in the whole text and in the left piece; the run behind it is a new one, in the whole text and in the
right piece. That a given tokenizer splits there, and both sides alike, is tried on some characters around each cut.
What a window cannot show, a count from the beginning of a run as in \p{N}{1,3}, begins anew at each of these places.

A tokenizer that puts a blank before the text (Metaspace, Llama 2's normalizer) does so to each piece: there only the
first place serves, and its blank is left out on the right. A BPE without any splitting (Llama 2's) never joins two
characters that no token of its vocabulary has side by side: it is cut before a blank if no token has one behind another
character. Where neither can be known, text is not cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import tokenizers

PIECE = 1 << 17
"""Characters of a piece, about. The encoder holds 100 bytes and more for each token of it."""
WINDOW = 128
"""Characters on both sides of a cut on which it is tried."""
TRIES = 32
"""Cuts that are tried of each kind before more text is looked at."""
BLANK = "\u2581"
"""What SentencePiece makes of a blank."""
PLACES = (
    re.compile(r"(?<=[^\s\u2581])(?= [^\W_])"),
    re.compile(r"(?<=[^\W\d_])(?=[,.;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f][^\W\d_])"),
    re.compile(r"(?<=\S\n)(?=[^\W_])"),
)
LOCAL_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
"""They change characters where they stand: nothing goes from one side of a cut to the other."""
SPLITTERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"}


class Cutter:
    """Cuts texts for one tokenizer."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        spec = json.loads(inner.to_str())
        self._inner = inner
        self._tried = spec["pre_tokenizer"] is not None
        normalizers, splitters = _leaves(spec["normalizer"]), _leaves(spec["pre_tokenizer"])
        self._drops = _puts_blank(normalizers, splitters)
        """Whether the blank at a cut is left out, because each piece gets one."""
        self.cuts = (
            not any(_spans_blanks(token) for token in spec["added_tokens"] if not token["special"])
            and spec["model"].get("dropout") is None
            and (_are_local(normalizers, splitters) if self._tried else _never_joins(spec["model"], normalizers))
        )
        """Whether it may cut at all."""

    def pieces(self, text: str) -> Iterator[str]:
        """The text in pieces of about PIECE characters; longer ones where there is no place to cut."""
        start = 0
        while len(text) - start > 2 * PIECE and (cut := self._cut(text, start + PIECE)) is not None:
            yield text[start:cut]
            start = cut + self._drops
        yield text[start:]

    def _cut(self, text: str, begin: int) -> int | None:
        """A place behind begin; None if there is none."""
        if not self.cuts:
            return None
        size = WINDOW * 32
        while begin < len(text) - 1:
            end = min(begin + size, len(text))
            for place in PLACES[: 1 if self._drops or not self._tried else None]:
                for tries, match in enumerate(place.finditer(text, begin, end)):
                    if tries == TRIES:
                        break
                    if self._splits_at(text, match.start()):
                        return match.start()
            begin, size = end, PIECE
        return None

    def _splits_at(self, text: str, cut: int) -> bool:
        if not self._tried:
            return True
        left, right = text[max(0, cut - WINDOW) : cut], text[cut : cut + WINDOW]
        return self._words(left + right) == self._words(left) + self._words(right[self._drops :])

    def _words(self, text: str) -> list[str]:
        if self._inner.normalizer is not None:
            text = self._inner.normalizer.normalize_str(text)
        return [word for word, _ in self._inner.pre_tokenizer.pre_tokenize_str(text)]


def _leaves(spec: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a sequence, nested ones included."""
    if spec is None:
        return []
    if spec["type"] != "Sequence":
        return [spec]
    steps = spec.get("normalizers") or spec.get("pretokenizers") or []
    return [leaf for step in steps for leaf in _leaves(step)]


def _puts_blank(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]]) -> bool:
    metaspace = any(step["type"] == "Metaspace" and step.get("prepend_scheme") != "never" for step in splitters)
    return metaspace or any(step["type"] == "Prepend" for step in normalizers)


def _spans_blanks(token: dict[str, Any]) -> bool:
    """Whether an added token may reach over a cut."""
    return bool(token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"[\s\W]", token["content"]))


def _are_local(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]]) -> bool:
    """Whether splitting depends on what is near only. A regular expression must not look back."""
    patterns = [str(step.get("pattern")) for step in splitters]
    return (
        all(step["type"] in LOCAL_NORMALIZERS for step in normalizers)
        and all(step["type"] in SPLITTERS or _is_plain_metaspace(step, splitters) for step in splitters)
        and not any("(?<" in pattern or "\\A" in pattern or "\\G" in pattern for pattern in patterns)
    )


def _is_plain_metaspace(step: dict[str, Any], splitters: list[dict[str, Any]]) -> bool:
    return step["type"] == "Metaspace" and bool(step.get("split", True)) and len(splitters) == 1


def _never_joins(model: dict[str, Any], normalizers: list[dict[str, Any]]) -> bool:
    """Whether a BPE that sees all of a text as one word has no token with a blank behind another character."""
    blanks = [step for step in normalizers if step["type"] == "Replace"]
    others = [step for step in normalizers if step["type"] not in ("Replace", "Prepend")]
    prepended = [step["prepend"] for step in normalizers if step["type"] == "Prepend"]
    known = len(blanks) == 1 and blanks[0]["pattern"] == {"String": " "} and blanks[0]["content"] == BLANK
    joined = re.compile(f"[^{BLANK}]{BLANK}")
    return (
        model["type"] == "BPE"
        and known
        and not others
        and prepended in ([], [BLANK])
        and not any(joined.search(token) for token in model["vocab"])
    )
