"""Byte-level BPE, as tiktoken's files and GPT-2's pairs have it."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from trainer.data.tokenizer import BYTE_OF

CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def spelt(token: bytes) -> str:
    """Bytes in GPT-2's printable alphabet."""
    return "".join(CHARACTER_OF[byte] for byte in token)


def byte_level(
    vocab: dict[str, int], merges: list[tuple[str, str]], special: Sequence[str], pattern: str | None, whole: bool
) -> tokenizers.Tokenizer:
    """special: in the order of their ids. pattern: cuts text into words; None: GPT-2's.

    whole: a word that is a token is one, whatever its merges say.
    """
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=whole))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        made.pre_tokenizer = bytes_of
    else:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return made
