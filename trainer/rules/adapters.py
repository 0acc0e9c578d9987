"""Adapters: values in their ranges, and a base to stand beside."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.groups.adapter import AdapterConfig
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.run.world import World

KINDS = ("none", "lora")
SOURCES = "a Hugging Face directory, or a checkpoint or run of ours"


def adapters(config: Config, world: World) -> Iterator[Problem]:
    """What adapter.* may say. Whether targets match is known when the model is built."""
    adapter, init_from = config.adapter, config.model.init_from
    if config.task == "finetune" and init_from is None:
        rule = "names weights to begin with: fine-tuning goes on from them"
        yield Problem("model.init_from", None, rule, f"model.init_from={SOURCES}; or task=pretrain")
    if adapter.kind not in KINDS:
        yield Problem("adapter.kind", adapter.kind, f"one of {', '.join(KINDS)}", "correct it; DoRA is adapter.dora")
    elif adapter.kind == "none":
        yield from _unused(adapter)
    else:
        yield from _lora(adapter)
        if adapter.init_from is None and ":" not in config.model.family and adapter.rank > config.model.hidden > 0:
            rule = f"at most {config.model.hidden:,}, the width of the model: B A has no higher rank"
            yield Problem("adapter.rank", adapter.rank, rule, "8 to 64 are usual")
        if init_from is None and config.task != "finetune":
            rule = "stands beside the weights that model.init_from names; drawn ones know nothing"
            yield Problem("adapter.kind", adapter.kind, rule, f"model.init_from={SOURCES}")


def _unused(adapter: AdapterConfig) -> Iterator[Problem]:
    """What would be passed over."""
    for key in ("rslora", "dora", "also_train", "init_from"):
        if value := getattr(adapter, key):
            yield Problem(f"adapter.{key}", value, "adapter.kind=lora", f"adapter=lora, or leave adapter.{key} out")


def _lora(adapter: AdapterConfig) -> Iterator[Problem]:
    if adapter.rank < 1:
        yield Problem("adapter.rank", adapter.rank, "rank >= 1", "8 to 64 are usual")
    for key in ("alpha", "lr_ratio"):
        if not (value := getattr(adapter, key)) > 0 or value == float("inf"):
            usual = "twice the rank is usual" if key == "alpha" else "1, or 16 as LoRA+ has it"
            yield Problem(f"adapter.{key}", value, f"0 < {key} < inf", usual)
    if not 0 <= adapter.dropout < 1:
        yield Problem("adapter.dropout", adapter.dropout, "0 <= dropout < 1", "0.05 is usual; 0 drops nothing")
    for key in ("targets", "also_train"):
        if any(not glob.strip() for glob in getattr(adapter, key)):
            yield Problem(f"adapter.{key}", list(getattr(adapter, key)), "names and globs", "leave empty ones out")
    if not adapter.targets:
        rule, remedy = "a module gets an adapter", "[all-linear]; or adapter=none and model.frozen for other parts"
        yield Problem("adapter.targets", [], rule, remedy)
