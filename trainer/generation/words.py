"""The tokenizer of a source, as transformers would use it: special tokens in a text count, and are left out of answers.

trainer.data.tokenizer reads a corpus literally; a prompt may spell the tokens that a chat template spells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from trainer.errors import ConfigError, Problem
from trainer.pretrained.source import Source
from trainer.pretrained.tokenizer_files import TOKENIZER, tokenizer_files

KEY = "MODEL"
"""What messages call the argument that names a source."""


@dataclass(frozen=True)
class Words:
    """inner: without truncation and padding. ends: ids that end a text. special: tokens by their role, bos_token and
    the like. template: of chats; None where there is none.
    """

    inner: tokenizers.Tokenizer
    ends: tuple[int, ...]
    special: Mapping[str, str]
    template: str | None

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids. special: with the tokens that the tokenizer puts around a text, such as BOS."""
        return list(self.inner.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def fingerprint(self) -> str:
        """By which ranks know that they have the same."""
        said = [self.inner.to_str(), list(self.ends), dict(self.special), self.template]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def words_of(source: Source) -> Words | None:
    """None where the source has no tokenizer. Raises ConfigError where it is another model's, or cannot be read."""
    if source.tokenizer is None or source.tokenizer.path is None or not Path(source.tokenizer.path).exists():
        return None
    file = Path(source.tokenizer.path)
    words, size = read_words(file / TOKENIZER if file.is_dir() else file, source.tokenizer.eod)
    if size > source.model.vocab:
        rule = f"each id of its tokenizer has a row of the embedding: {size:,} ids, {source.model.vocab:,} rows"
        raise ConfigError(Problem(KEY, source.given, rule, f"put the model's own {TOKENIZER} there"))
    return words


def read_words(file: Path, eod: str | None) -> tuple[Words, int]:
    """Of a tokenizer.json and what lies beside it, and the number of its ids. Raises ConfigError. eod: ends a text."""
    files = tokenizer_files(file, eod)
    ends = files.ids.get("eos_token_id", [])
    inner = tokenizers.Tokenizer.from_file(str(file))
    inner.no_truncation()
    inner.no_padding()
    several = tuple(ends) if isinstance(ends, list) else (ends,)
    return Words(inner, several, files.tokens, files.templates.get("default")), files.size
