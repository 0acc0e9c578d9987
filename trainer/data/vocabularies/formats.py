"""Which vocabulary a path is, when it is no tokenizer.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from trainer.data.vocabularies.pairs import from_pair, pair_of
from trainer.data.vocabularies.sentencepiece import Unfit, from_sentencepiece, is_model
from trainer.data.vocabularies.tiktoken import from_tiktoken, is_tiktoken

LIKELY = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SUFFIXES = (".model", ".tiktoken")
LARGEST = 64 << 20
"""Bytes of a file that is looked into: vocabularies have 1 to 10 MB."""


@dataclass(frozen=True)
class Vocabulary:
    """files: it is made of. what: in words. make: the tokenizer, and the token that ends a text; may raise Unfit."""

    files: tuple[Path, ...]
    what: str
    make: Callable[[], tuple[tokenizers.Tokenizer, str | None]]

    def digest_with(self, others: Iterable[Path]) -> str:
        """Of the bytes of its files, and of those others that there are. Raises OSError."""
        found = hashlib.blake2b(digest_size=12)
        for file in [*self.files, *(one for one in others if one.is_file())]:
            data = file.read_bytes()
            found.update(f"{file.name}\0{len(data)}\0".encode() + data)
        return found.hexdigest()


def vocabulary_of(path: Path) -> Vocabulary | None:
    """The one that a file is, or that a directory holds; None for neither. Raises Unfit, OSError."""
    if path.is_dir():
        if (pair := pair_of(path)) is not None:
            return _pair(*pair)
        made = [one for file in _candidates(path) if (one := _single(file)) is not None]
        if len(made) > 1:
            raise Unfit(f"{made[0].files[0].name} and {made[1].files[0].name} are both vocabularies: name one of them")
        return made[0] if made else None
    if (pair := pair_of(path.parent)) is not None and path in pair:
        return _pair(*pair)
    return _single(path) if path.is_file() else None


def _candidates(directory: Path) -> Iterator[Path]:
    likely = [directory / name for name in LIKELY if (directory / name).is_file()]
    yield from likely or sorted(file for file in directory.glob("*") if file.suffix in SUFFIXES and file.is_file())


def _pair(vocab: Path, merges: Path) -> Vocabulary:
    return Vocabulary((vocab, merges), f"GPT-2's pair {vocab.name} and {merges.name}", lambda: from_pair(vocab, merges))


def _single(file: Path) -> Vocabulary | None:
    if file.stat().st_size > LARGEST:
        return None
    data = file.read_bytes()
    if is_tiktoken(data):
        return Vocabulary((file,), f"the tiktoken file {file.name}", lambda: from_tiktoken(data))
    if is_model(data):
        return Vocabulary((file,), f"the SentencePiece model {file.name}", lambda: from_sentencepiece(data))
    return None
