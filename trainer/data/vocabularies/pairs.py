"""GPT-2's two files: a vocabulary, text to id, and merges, a pair a line."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers

from trainer.data.tokenizer import BYTE_OF
from trainer.data.vocabularies.byte_level import byte_level
from trainer.data.vocabularies.sentencepiece import Unfit

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""As the transformers library names them, and as OpenAI did."""
WORD_END = "</w>"
MOST_UNMADE = 0.1
"""Share of tokens that no merge makes. Special ones are few: with more of them the end of the merges was cut off."""


def pair_of(directory: Path) -> tuple[Path, Path] | None:
    """The two files, where both are there."""
    for names in PAIRS:
        vocab, merges = (directory / name for name in names)
        if vocab.is_file() and merges.is_file():
            return vocab, merges
    return None


def from_pair(vocab: Path, merges: Path) -> tuple[tokenizers.Tokenizer, None]:
    """Special are the tokens of the vocabulary that no merge makes. Raises Unfit, OSError."""
    ids = _vocabulary(vocab)
    pairs = [
        (left, right)
        for number, line in enumerate(merges.read_text(encoding="utf-8").split("\n"), 1)
        if line.strip() and not (number == 1 and line.startswith("#version"))
        for left, right in [_pair(line, number, merges)]
    ]
    if WORD_END in ids or any(text.endswith(WORD_END) for text in ids):
        raise Unfit(f"its tokens end words with {WORD_END}: it is no pair of GPT-2's kind")
    if missing := [character for character in BYTE_OF if character not in ids]:
        raise Unfit(f"not every byte is one of its tokens: {len(missing)} are not")
    for left, right in pairs:
        if not {left, right, left + right} <= ids.keys():
            raise Unfit(f"{merges.name} merges {left} and {right}, and {vocab.name} lacks one of them or the result")
    made = {left + right for left, right in pairs}
    special = [text for text in ids if text not in made and text not in BYTE_OF]
    if len(special) > MOST_UNMADE * len(ids):
        raise Unfit(f"{merges.name} makes all but a few of the tokens; {len(special):,} of {len(ids):,} it does not")
    if sorted(ids.values()) != list(range(len(ids))):
        raise Unfit(f"the ids of {vocab.name} are not 0, 1, 2, ... each once")
    return byte_level(ids, pairs, sorted(special, key=lambda text: ids[text]), None, whole=False), None


def _vocabulary(file: Path) -> dict[str, int]:
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{file.name} is no JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(ids, dict) or not all(type(value) is int for value in ids.values()):
        raise Unfit(f"{file.name} is no object of texts and ids")
    return ids


def _pair(line: str, number: int, file: Path) -> tuple[str, str]:
    parts = line.rstrip("\r").split(" ")
    if len(parts) != 2:
        raise Unfit(f"line {number:,} of {file.name} is no pair")
    return parts[0], parts[1]
