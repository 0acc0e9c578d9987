"""Keys of `data`: text, tokens and samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceConfig:
    kind: str = "files"
    """files (text, JSONL or Parquet, by suffix) | python_stdlib | huggingface | indexed (.bin/.idx prefix) | plugin."""
    name: str = "corpus"
    """For messages, the cache and the cursor; unique among the sources."""
    paths: list[str] = field(default_factory=list)
    """Files, directories or globs; a data set's name or directory for huggingface; prefixes for indexed."""
    weight: float = 1.0
    """Share of the training samples, relative to the other sources."""
    text_field: str = "text"
    """Column that holds the text (JSONL, Parquet, huggingface)."""
    document_unit: str = "file"
    """Text files: a document is a file | paragraph | line."""
    subset: str | None = None
    """huggingface: configuration of the data set."""
    split: str = "train"
    """huggingface: split to read."""
    _target_: str | None = None
    """plugin: dotted name of a callable of yours that returns an iterable of documents (str)."""
    options: dict[str, Any] = field(default_factory=dict)
    """plugin: its keyword arguments."""


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "train_bpe"
    """train_bpe (byte-level, learnt from the training part) | file (tokenizer.json or a Hugging Face directory)."""
    path: str | None = None
    """kind=file: the tokenizer.json or the directory that holds one."""
    vocab: int = 4096
    """train_bpe: number of ids, special tokens included."""
    eod: str | None = None
    """Token that ends a document. Unset: the tokenizer's own end-of-text token."""


@dataclass(frozen=True)
class DataConfig:
    sources: list[SourceConfig] = field(default_factory=list)
    """Where the text comes from."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    seq_len: int = 512
    """Tokens per sample."""
    document_mask: bool = True
    """Attention and targets stay inside a document."""
    heldout_fraction: float = 0.02
    """Share of documents kept for evaluation, chosen by a hash of their content, so duplicates never straddle. Token
    files that are ready (kind indexed) are split by ranges of documents."""
    heldout_documents: int = 10_000
    """Sources of kind indexed: documents kept for evaluation, in up to 16 ranges; 10,000 at most, and no more than
    data.heldout_fraction."""
    cache_dir: str = ".cache/data"
    """Tokenised corpora and tokenizers, keyed by content; safe to share between runs and to delete."""
    prefetch: int = 2
    """Steps that a background thread prepares ahead."""
