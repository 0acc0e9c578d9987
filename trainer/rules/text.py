"""The sources of text and the tokenizer. Whether they can be read is for trainer.data (exit 4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.config.groups.evaluation import EvaluationSetConfig
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.run.world import World

SOURCE_KINDS = ("files", "python_stdlib", "huggingface", "indexed", "prepared", "plugin")
DOCUMENT_UNITS = ("file", "paragraph", "line")
FORMATS = ("text", "jsonl", "csv", "tsv", "parquet", "arrow", "tar")
BAD_DOCUMENTS = ("skip", "stop")
CHAT = ("auto", "messages", "conversations", "prompt_completion", "instruction")
CHAT_KINDS = ("files", "huggingface", "plugin")


def sources(config: Config, world: World) -> Iterator[Problem]:
    """Sources are said completely. Whether they can be read is for trainer.data (exit 4)."""
    if not config.data.sources:
        yield Problem(
            "data.sources", [], "at least one source", "data=python_stdlib, or data.sources=[{paths: [my/*.txt]}]"
        )
    names = [source.name for source in config.data.sources]
    if len(set(names)) != len(names):
        yield Problem("data.sources", names, "names are unique", "give each source a name of its own")
    if (policy := config.data.bad_documents) not in BAD_DOCUMENTS:
        yield Problem("data.bad_documents", policy, f"one of: {', '.join(BAD_DOCUMENTS)}", "set it to one")
    if config.data.packing == "best_fit" and not config.data.document_mask:
        rule = "true with data.packing=best_fit: unrelated documents share a sample, and would attend to each other"
        yield Problem("data.document_mask", False, rule, "leave it out, or set data.packing=contiguous")
    if config.data.packing != "best_fit" and config.data.long_documents != "split":
        rule = f"used only by data.packing=best_fit, and data.packing is {config.data.packing}"
        yield Problem(
            "data.long_documents", config.data.long_documents, rule, "add data.packing=best_fit, or set it to split"
        )
    for index, source in enumerate(config.data.sources):
        key = f"data.sources.{index}"
        if source.kind not in SOURCE_KINDS:
            yield Problem(f"{key}.kind", source.kind, f"one of: {', '.join(SOURCE_KINDS)}", "set it to one of them")
        elif source.kind not in ("python_stdlib", "plugin") and not source.paths:
            yield Problem(f"{key}.paths", [], "names at least one file, glob or data set", "set paths: [...]")
        elif not all(path.strip() for path in source.paths):
            yield Problem(f"{key}.paths", source.paths, "no path is empty", "use . for this directory, if you mean it")
        yield from units(key, source)
    yield from conversations(config)


def conversations(config: Config) -> Iterator[Problem]:
    """Sources of conversations, and the keys that are only about them."""
    data, defaults = config.data, DataConfig()
    said = [(f"data.sources.{index}", source) for index, source in enumerate(data.sources)]
    for key, source in said:
        if source.chat is not None and source.kind not in CHAT_KINDS:
            rule = f"for kind {', '.join(CHAT_KINDS)}; that of {source.name} is {source.kind}"
            yield Problem(f"{key}.chat", source.chat, rule, "leave it out; what is prepared already knows it")
    sets = [(f"evaluation.sets.{index}", one) for index, one in enumerate(config.evaluation.sets)]
    both: list[tuple[str, SourceConfig | EvaluationSetConfig]] = [*said, *sets]
    given = [(key, one) for key, one in both if one.chat is not None]
    for key, one in given:
        if one.chat not in CHAT:
            yield Problem(f"{key}.chat", one.chat, f"one of: {', '.join(CHAT)}", "set it to one, or leave it out")
        if one.format == "text":
            yield Problem(
                f"{key}.format", one.format, "of rows, for conversations", "use jsonl, say, or leave chat out"
            )
        if data.tokenizer.kind != "file":
            rule = f"file, for conversations ({key}): a tokenizer that is learnt has no chat template"
            remedy = "set data.tokenizer.path to the model's tokenizer"
            yield Problem("data.tokenizer.kind", data.tokenizer.kind, rule, remedy)
    for name in ("chat_template", "chat_date", "train_on"):
        if not given and (value := getattr(data, name)) != getattr(defaults, name):
            remedy = "set chat: auto for a source of conversations, or leave it out"
            yield Problem(f"data.{name}", value, "used only by sources of conversations, and there is none", remedy)
    try:
        datetime.fromisoformat(data.chat_date)
    except ValueError:
        yield Problem("data.chat_date", data.chat_date, "a date: YYYY-MM-DD", f"use {defaults.chat_date}")


def units(key: str, of: SourceConfig | EvaluationSetConfig) -> Iterator[Problem]:
    """What files are taken for, and how they are cut. key: of the source, or of the set."""
    if of.document_unit not in DOCUMENT_UNITS:
        yield Problem(f"{key}.document_unit", of.document_unit, f"one of: {', '.join(DOCUMENT_UNITS)}", "set it to one")
    if of.format is not None and of.format not in FORMATS:
        yield Problem(f"{key}.format", of.format, f"one of: {', '.join(FORMATS)}", "set it to one, or leave it out")


def tokenizer(config: Config, world: World) -> Iterator[Problem]:
    """The tokenizer is said completely and fits the model and the sources."""
    tokenizer = config.data.tokenizer
    for index, source in enumerate(config.data.sources):
        if source.kind in ("indexed", "prepared") and tokenizer.kind != "file":
            rule = f"file, because data.sources.{index} ({source.name}) holds token ids already"
            remedy = "set data.tokenizer.path to the tokenizer that made the files"
            yield Problem("data.tokenizer.kind", tokenizer.kind, rule, remedy)
    if tokenizer.kind != "file" and tokenizer.path:
        rule = f"used only by kind=file, and data.tokenizer.kind is {tokenizer.kind}"
        yield Problem("data.tokenizer.path", tokenizer.path, rule, "add data.tokenizer.kind=file")
    if tokenizer.kind == "file" and not tokenizer.path:
        yield Problem(
            "data.tokenizer.path", tokenizer.path, "needed by kind=file", "name a tokenizer.json or its directory"
        )
    if tokenizer.kind == "train_bpe":
        if tokenizer.vocab < 257:
            yield Problem("data.tokenizer.vocab", tokenizer.vocab, "256 bytes and the end-of-text token fit", "use 512")
        if tokenizer.vocab > config.model.vocab:
            yield Problem(
                "data.tokenizer.vocab",
                tokenizer.vocab,
                f"at most model.vocab ({config.model.vocab})",
                f"set model.vocab={tokenizer.vocab}",
            )
