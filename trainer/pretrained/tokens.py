"""The tokenizer of a model's directory: its ids, and whether the embedding has a row for each. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, mapping, read
from trainer.pretrained.refused import AGAIN, refused

FILE = "tokenizer.json"
LONGEST = 256 << 20
"""Bytes of the largest tokenizer.json that is read."""
MOST_UNUSED = 1 / 8
"""Share of the embedding's rows that may have no id. Published models round up their vocabularies, by 2.4 % at most
(DeepSeek LLM: 100,015 ids, 102,400 rows); another model's tokenizer is off by far more."""


def tokenizer_of(path: Path) -> Path | None:
    """The directory's tokenizer.json, if there is one."""
    return path / FILE if (path / FILE).exists() else None


def ids_of(path: Path, file: Path) -> int:
    """Ids of a tokenizer.json: one more than the largest. path: of the model's directory, for messages."""
    try:
        whole = mapping(read(file, LONGEST), "it")
        vocabulary = mapping(whole.get("model"), "model").get("vocab")
        ids = list(_ids(vocabulary)) + [token.get("id") for token in whole.get("added_tokens") or []]
        return max(int(index) for index in ids) + 1
    except (Unsound, OSError, ValueError, TypeError, AttributeError) as error:
        rule = f"its {FILE} gives each token an id ({error})"
        raise refused(path, rule, f"{AGAIN}, or name another tokenizer: data.tokenizer.path=...") from None


def _ids(vocabulary: Any) -> Any:
    """BPE and WordPiece: ids by token. Unigram: a list of tokens with their scores."""
    return vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary or ()))


def refuse_other_vocabulary(path: Path, ids: int, grown: int, rows: int) -> None:
    """Raise ConfigError where the tokenizer is another model's. rows: of the embedding there; grown: as it will be."""
    if ids > grown:
        rule = f"each id of its {FILE} has a row of the embedding: {ids:,} ids, {rows:,} rows"
        remedy = f"put the model's own {FILE} there; or model.vocab={ids} adds rows, the mean of those there are"
        raise refused(path, rule, remedy)
    if rows - ids > MOST_UNUSED * rows:
        rule = f"its {FILE} is its model's: {ids:,} ids use less than 7/8 of the embedding's {rows:,} rows"
        remedy = f"put the model's own {FILE} there, or name another: data.tokenizer.kind=file data.tokenizer.path=..."
        raise refused(path, rule, remedy)
