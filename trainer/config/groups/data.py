"""Keys of `data`: text, tokens and samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceConfig:
    kind: str = "files"
    """files (format by suffix) | python_stdlib | huggingface | prepared (by scripts/prepare.py) | indexed (.bin/.idx
    prefix) | plugin."""
    name: str = "corpus"
    """For messages, the cache and the cursor; unique among the sources."""
    paths: list[str] = field(default_factory=list)
    """Files, directories or globs; a data set's name or directory for huggingface; prefixes for indexed;
    directories for prepared. Also s3://, but for huggingface."""
    weight: float = 1.0
    """Share of the training samples, relative to the other sources; 0 where only a stage draws from it."""
    text_field: str = "text"
    """Column that holds the text (JSON, CSV, Parquet, Arrow, huggingface)."""
    chat: str | None = None
    """Rows are conversations: auto (by their columns) | messages | conversations (ShareGPT) | prompt_completion |
    instruction. text_field then names the column of the turns, if it has another name. Unset: plain text."""
    format: str | None = None
    """files: text | jsonl | csv | tsv | parquet | arrow | tar (WebDataset). Unset: the suffixes say it."""
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
class StageConfig:
    from_tokens: int = 0
    """The stage begins with the first sample after so many tokens of training."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights from there on, by source; a source that is not named keeps the one it has. 0: it rests."""


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "train_bpe"
    """train_bpe (byte-level, learnt from the training part) | file (tokenizer.json or a Hugging Face directory)."""
    path: str | None = None
    """kind=file: the tokenizer.json or the directory that holds one."""
    vocab: int = 4096
    """train_bpe: number of ids, special tokens included."""
    eod: str | None = None
    """Token that ends a document. Unset: what the tokenizer's directory declares, else a usual name (printed)."""
    max_unknown: float = 0.01
    """Largest share of a source's tokens that may stand for text which the tokenizer has no token for."""


@dataclass(frozen=True)
class DataConfig:
    sources: list[SourceConfig] = field(default_factory=list)
    """Where the text comes from."""
    stages: list[StageConfig] = field(default_factory=list)
    """Other weights later in training, in order: an annealing mixture, a curriculum."""
    max_epochs: float | None = None
    """Refuse a run that would show a source more often than this. Unset: it is shown again and again, in new orders."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    chat_template: str | None = None
    """Sources with chat: a file with another template than the tokenizer's, or the name of one of its templates."""
    chat_date: str = "2024-07-26"
    """What a template that writes today's date takes for it: the same text on every rank and on a resume."""
    train_on: str = "assistant"
    """Sources with chat: assistant (all that the assistant says) | last (its last turn) | all."""
    seq_len: int = 512
    """Tokens per sample."""
    document_mask: bool = True
    """Attention and targets stay inside a document."""
    packing: str = "contiguous"
    """contiguous: samples are cut from the stream of documents | best_fit: whole documents are put together into
    samples, for fine-tuning."""
    long_documents: str = "split"
    """best_fit: documents longer than a sample are split into windows | truncate: cut to the first one | drop: left
    out. What is lost is counted and told."""
    heldout_fraction: float = 0.02
    """Share of documents kept for evaluation, chosen by a hash of their content, so duplicates never straddle. Token
    files that are ready (kind indexed) are split by ranges of documents."""
    heldout_documents: int = 10_000
    """Sources of kind indexed: documents kept for evaluation, in up to 16 ranges; 10,000 at most, and no more than
    data.heldout_fraction."""
    bad_documents: str = "skip"
    """Not UTF-8, without text, too long: skip (counted and told, with places) | stop (exit 4 at the first)."""
    cache_dir: str = ".cache/data"
    """Tokenised corpora and tokenizers, keyed by content; safe to share between runs and to delete."""
    cache_gb: float = 50.0
    """Bound of data.cache_dir/objects, which holds what is read of s3://: the least recently used goes first."""
    prefetch: int = 2
    """Steps that a background thread prepares ahead."""
