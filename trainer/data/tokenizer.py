"""Texts to ids and back, and the bytes behind each id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from trainer.config.groups.data import TokenizerConfig
from trainer.errors import DataError, Problem

DEFAULT_EOD = "<|endoftext|>"
KNOWN_EODS = (
    DEFAULT_EOD,
    "</s>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",  # DeepSeek: full-width bars and the sentencepiece space
)
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
        self.eod_token = eod
        self.eod: int = eod_id
        self.size: int = max(inner.get_vocab(with_added_tokens=True).values()) + 1

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special tokens added. Uses all cores."""
        return [encoding.ids for encoding in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens are shown as they are spelt."""
        return str(self.inner.decode(list(ids), skip_special_tokens=False))

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for, [size]; b"" for special tokens and unused ids.

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
        return table

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


def load(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a tokenizer.json or of a directory that holds one. Runs none of that directory's code.

    Raises DataError when it is missing or unreadable, or when its end-of-text token cannot be told.
    """
    if config.path is None:
        rule = "data.tokenizer.kind=file needs a path"
        raise _path_error(None, rule, "give a tokenizer.json or a directory that holds one")
    path = Path(config.path).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        remedy = "give a tokenizer.json or a directory that holds one (slow tokenizers: save them as fast ones first)"
        raise _path_error(config.path, f"{file} does not exist", remedy)
    try:
        inner = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for whatever it cannot parse
        rule = f"{file} is no tokenizer.json: {' '.join(str(error).split())[:200]}"
        raise _path_error(config.path, rule, "download or save it again") from error
    return Tokenizer(inner, _eod(config, inner, file.parent), file)


def _path_error(path: str | None, rule: str, remedy: str) -> DataError:
    return DataError(Problem("data.tokenizer.path", path, rule, remedy))


def _eod(config: TokenizerConfig, inner: tokenizers.Tokenizer, directory: Path) -> str:
    candidates = [config.eod] if config.eod is not None else [*KNOWN_EODS, *_configured_eod(directory)]
    for token in candidates:
        if inner.token_to_id(token) is not None:
            return token
    if config.eod is not None:
        rule, remedy = "the tokenizer has no such token", "name one of its special tokens"
    else:
        rule = f"the tokenizer has none of the usual end-of-text tokens ({', '.join(KNOWN_EODS)})"
        remedy = "name the token that ends a document: data.tokenizer.eod=TOKEN"
    special = [token.content for token in inner.get_added_tokens_decoder().values() if token.special][:8]
    remedy += f"; it has {', '.join(special)}" if special else ""
    raise DataError(Problem("data.tokenizer.eod", config.eod, rule, remedy))


def _configured_eod(directory: Path) -> list[str]:
    """The eos_token of a tokenizer_config.json next to the tokenizer: a string or an object with its content."""
    try:
        token = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return []
    content = token.get("content") if isinstance(token, dict) else token
    return [content] if isinstance(content, str) else []


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
