"""Texts to ids and back, and the bytes behind each id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from trainer.errors import DataError, Problem

DEFAULT_EOD = "<|endoftext|>"
BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """A tokenizers.Tokenizer that encodes text literally: text that spells a special token stays text."""

    def __init__(self, inner: tokenizers.Tokenizer, eod: str, file: Path | None = None) -> None:
        """eod: the token that ends a document; must be one of the tokenizer's. file: where it was read from."""
        inner.no_truncation()  # a tokenizer.json may carry either, and both would silently alter the corpus
        inner.no_padding()
        inner.encode_special_tokens = True
        eod_id = inner.token_to_id(eod)
        if eod_id is None:
            raise ValueError(f"the tokenizer has no token {eod!r}")
        self.inner, self.file = inner, file
        self.unknown = _unknown(inner)
        """The id of text that the tokenizer has no token for; None where there is no such text."""
        self.eod_token = eod
        self.eod: int = eod_id
        self.size: int = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self._spelt = _spelt(inner, self.unknown)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special tokens added. Uses all cores."""
        every = [encoding.ids for encoding in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        if not self._spelt:
            return every
        return [[spelt for token in ids for spelt in self._spelt.get(token, (token,))] for ids in every]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens are shown as they are spelt."""
        return str(self.inner.decode(list(ids), skip_special_tokens=False))

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for, [size]; b"" for special tokens, the unknown one and unused ids.

        Knows byte-level BPE (GPT-2's byte alphabet) and sentencepiece's conventions (U+2581 for a space, <0x0A> for
        a byte).
        """
        added = self.inner.get_added_tokens_decoder()
        byte_level = "ByteLevel" in _types(json.loads(self.inner.to_str()))
        table = [b""] * self.size
        for token, index in self.inner.get_vocab(with_added_tokens=True).items():
            if index in added:  # kept out of the model's alphabet: its spelling is its text
                table[index] = b"" if added[index].special else added[index].content.encode()
            else:
                table[index] = _byte_level_bytes(token) if byte_level else _sentencepiece_bytes(token)
        if self.unknown is not None:
            table[self.unknown] = b""
        return table

    @cached_property
    def token_sizes(self) -> NDArray[np.int64]:
        """How many bytes each id stands for, [size]."""
        return np.array([len(piece) for piece in self.token_bytes], np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that decides the ids of a text and the end of a document."""
        return hashlib.blake2b(f"{self.eod}\0{self.inner.to_str()}".encode(), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write a tokenizer.json. Raises OSError, where the library's own method raises plain Exception."""
        path.write_text(self.inner.to_str(pretty=True), encoding="utf-8")


def train_bpe(texts: Iterator[str], vocab: int, eod: str = DEFAULT_EOD) -> Tokenizer:
    """Learn a byte-level BPE with at most `vocab` ids. The same texts give the same tokenizer, in any process."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab < len(alphabet) + 1:
        rule = f"a byte-level tokenizer has {len(alphabet)} bytes and one end-of-text token"
        raise DataError(Problem("data.tokenizer.vocab", vocab, rule, f"use at least {len(alphabet) + 1}"))
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[eod], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner, eod)


def _unknown(inner: tokenizers.Tokenizer) -> int | None:
    """By what the model says: a name, and the Unigram model its id."""
    model = json.loads(inner.to_str())["model"]
    if model.get("byte_fallback") and all(inner.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256)):
        return None
    if isinstance(found := model.get("unk_id"), int):
        return found
    name = model.get("unk_token")
    return None if name is None else inner.token_to_id(name)


def _spelt(inner: tokenizers.Tokenizer, unknown: int | None) -> dict[int, list[int]]:
    """Special tokens that the model itself makes of text that spells them, and the ids of their characters instead.

    BPE does not, without merges to them; the other models take any token of their vocabulary.
    """
    found = {}
    merging = isinstance(inner.model, models.BPE)
    for index, token in inner.get_added_tokens_decoder().items():
        if not token.special or index == unknown:
            continue
        if not merging or index in inner.encode(token.content, add_special_tokens=False).ids:
            single = (inner.token_to_id(character) for character in token.content)
            known = (unknown if one is None else one for one in single)
            found[index] = [one for one in known if one is not None]
    return found


def _types(spec: dict[str, Any]) -> set[str]:
    """Names of the pre-tokenizers and decoders of a tokenizer.json, nested ones included."""
    found: set[str] = set()
    pending: list[Any] = [spec.get("pre_tokenizer"), spec.get("decoder")]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            found.add(str(node.get("type")))
            pending += [child for child in node.values() if isinstance(child, list)]
        elif isinstance(node, list):
            pending += node
    return found


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, and back."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


BYTE_OF = _byte_alphabet()


def _byte_level_bytes(token: str) -> bytes:
    if all(character in BYTE_OF for character in token):
        return bytes(BYTE_OF[character] for character in token)
    return token.encode()


def _sentencepiece_bytes(token: str) -> bytes:
    byte = BYTE_FALLBACK.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()
