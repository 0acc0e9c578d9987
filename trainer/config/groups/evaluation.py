"""Keys of `evaluation`: what a model is scored on while it trains, samples, and the best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EvaluationSetConfig:
    name: str = ""
    """What its records are called; unique, and not heldout: that is the text that data.heldout_fraction keeps."""
    kind: str = "text"
    """text (scored by loss, as held-out text is) | tasks (JSONL: multiple choice or exact match, docs/evaluate.md)."""
    paths: list[str] = field(default_factory=list)
    """Files, directories or globs, as data.sources has them; of kind=tasks one file."""
    text_field: str = "text"
    """kind=text: column that holds the text (JSON, CSV, Parquet, Arrow)."""
    chat: str | None = None
    """kind=text: rows are conversations, as data.sources has it; the loss is over what the assistant says."""
    format: str | None = None
    """kind=text: as data.sources has it."""
    document_unit: str = "file"
    """kind=text: in text files, a document is a file | paragraph | line."""


@dataclass(frozen=True)
class EvaluationConfig:
    every_steps: int = 100
    """Evaluate on held-out text every so many steps, and always at the end; 0 never."""
    windows: int = 128
    """Samples to score of held-out text, and of each set of text, spread evenly over it."""
    sets: list[EvaluationSetConfig] = field(default_factory=list)
    """What else the model is scored on, each with its own records."""
    best: str | None = None
    """SET/METRIC: the checkpoint where it was best is saved and kept; heldout/loss, say. Unset: none is."""
    patience: int | None = None
    """End training, complete, after so many evaluations in a row that were not the best (evaluation.best). Unset: go on
    to the schedule's end."""
    sample_prompt: str = "def "
    """Text that the printed sample continues; empty for no sample."""
    sample_tokens: int = 48
    """Length of the printed sample, in tokens."""
    sample_temperature: float = 0.7
    """0 takes the likeliest token."""
