"""What a corpus has to have: documents to train on, documents to hold out, and tokens for its text."""

from __future__ import annotations

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.documents import documents
from trainer.data.skipped import Policy
from trainer.data.tokenizing import is_heldout
from trainer.errors import DataError, Problem

READY = ("indexed", "prepared")
"""Kinds of sources that hold tokens."""


def refuse_one_sided(config: DataConfig) -> None:
    """Read each source of text until a training document of it, and a held-out document of any, have been seen.

    Of a sound corpus that is its beginning, about 1 / data.heldout_fraction documents. Raises DataError for a source
    without training documents, and where none is held out although data.heldout_fraction asks for some.
    """
    fraction = config.heldout_fraction
    held = fraction == 0 or any(source.kind in READY for source in config.sources)
    total = 0
    for source in config.sources:
        if fraction == 0 or source.kind in READY:
            continue
        count, trained = 0, False
        for text in documents(source, Policy(config.bad_documents)):
            count += 1
            if is_heldout(text.encode(), fraction):
                held = True
            else:
                trained = True
            if held and trained:
                break
        if not trained:
            raise DataError(all_heldout(source, count))
        total += count
    if not held:
        raise DataError(none_heldout(fraction, total))


def all_heldout(source: SourceConfig, count: int) -> Problem:
    """A source that has nothing left to train on. count: its documents."""
    rule = f"all {count:,} documents fell to the held-out part"
    remedy = "lower data.heldout_fraction, add documents or cut finer ones (document_unit=paragraph)"
    if source.kind == "prepared":
        remedy = f"add a directory with more text, or prepare it again: {remedy}"
    return Problem(f"data.sources[{source.name}].paths", source.paths, rule, remedy)


def none_heldout(fraction: float, count: int, prepared: bool = False) -> Problem:
    """A run without text to evaluate on. count: documents of all sources. prepared: whether all of these are."""
    rule = f"none of {count:,} documents fell to the held-out part"
    remedy = "raise it, add documents or cut finer ones (document_unit=paragraph), or set it to 0: no evaluation"
    if prepared:
        remedy = "set it to 0 and go without evaluation, or prepare the text again with a larger one"
    return Problem("data.heldout_fraction", fraction, rule, remedy)


def refuse_unknown(name: str, share: float, config: TokenizerConfig) -> None:
    """name: of a source. share: of its tokens that are unknown. Raises DataError above data.tokenizer.max_unknown."""
    if share > config.max_unknown:
        rule = f"at most {config.max_unknown:.2%} of the tokens are unknown; of source {name} {share:.2%} are"
        remedy = "use a tokenizer that falls back on bytes, or allow it: data.tokenizer.max_unknown=SHARE"
        raise DataError(Problem("data.tokenizer.path", config.path, rule, remedy))
