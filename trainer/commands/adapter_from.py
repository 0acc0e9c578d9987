"""adapter.init_from at configuration time: rank, scale and targets come from where the adapters do. No torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.groups.adapter import AdapterConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem

if TYPE_CHECKING:
    from trainer.pretrained.peft.source import AdapterSource

KEY = "adapter.init_from"
TAKEN = ("rank", "alpha", "rslora", "dora")
"""Fields that say what the adapters are; dropout and lr_ratio speak of training."""
LISTS = ("targets", "also_train")


def base_of_adapters(config: Config) -> Config:
    """Where adapters are trained and model.init_from names a run with adapters: its base, and adapter.init_from it.

    Raises ConfigError where that is not sound, or names no base.
    """
    named = config.model.init_from
    if config.adapter.kind != "lora" or named is None or not os.access(named, os.F_OK):
        return config
    from trainer.checkpoint.verify import read_state  # with numpy, which a mistake elsewhere is answered without
    from trainer.pretrained.peft.source import adapted_checkpoint

    if (checkpoint := adapted_checkpoint(Path(named))) is None:
        return config
    if config.adapter.init_from is not None:
        rule = f"model.init_from names a base, or a run whose adapters go on; {named} has adapters, as {KEY} does"
        raise ConfigError(Problem(KEY, config.adapter.init_from, rule, f"leave {KEY} out, or name a base without"))
    if (base := read_state(checkpoint).base) is None:
        rule = f"names a run that says what its base is; {checkpoint.name} holds it and names none"
        remedy = (
            "adapter=none begins with the two merged; scripts/export_hf.py --adapter, and adapter.init_from, without"
        )
        raise ConfigError(Problem("model.init_from", named, rule, remedy))
    model, adapter = replace(config.model, init_from=base.path), replace(config.adapter, init_from=str(checkpoint))
    return replace(config, model=model, adapter=adapter)


def adapter_taken(config: Config, keys: Collection[str]) -> tuple[Config, tuple[str, ...]]:
    """The configuration with what adapter.init_from says, and lines about it. keys: of the command line.

    Raises ConfigError where it is not sound, or where the command line says otherwise.
    """
    if config.adapter.kind != "lora" or config.adapter.init_from is None:
        return config, ()
    from trainer.pretrained.peft.source import described, open_adapter

    source = open_adapter(config.adapter.init_from, config.model)
    adapter = merged(config.adapter, source.config)
    if problems := list(_against(config, adapter, source, keys)):
        raise ConfigError(problems)
    if "adapter.targets" in keys:  # other words for the same modules
        adapter = replace(adapter, targets=config.adapter.targets)
    adapter = replace(adapter, init_from=str(source.path))
    return replace(config, adapter=adapter), tuple(described(source))


def merged(now: AdapterConfig, source: AdapterConfig) -> AdapterConfig:
    """The source's adapters, with what this configuration says of training."""
    fields: dict[str, Any] = {name: getattr(source, name) for name in (*TAKEN, *LISTS)}
    return replace(now, **fields)


def _against(config: Config, adapter: AdapterConfig, source: AdapterSource, keys: Collection[str]) -> Iterator[Problem]:
    """What the command line says and the source does not."""
    from trainer.pretrained.adapters import path_of, split_names, weight_shapes
    from trainer.pretrained.peft.names import Modules, resolved

    own, theirs = split_names(source.shapes)
    for name in TAKEN:
        value, its = getattr(config.adapter, name), getattr(adapter, name)
        if f"adapter.{name}" in keys and value != its:
            yield _otherwise(f"adapter.{name}", value, repr(its), source)
    if "adapter.targets" in keys and ":" not in config.model.family:
        wanted = resolved(config.adapter.targets, Modules(config.model).matrices)
        if wanted != set(map(path_of, theirs)):
            yield _otherwise("adapter.targets", list(config.adapter.targets), f"[{', '.join(adapter.targets)}]", source)
    if "adapter.also_train" in keys:
        from fnmatch import fnmatchcase

        globs = config.adapter.also_train
        matched = {name for name in weight_shapes(config.model) if any(fnmatchcase(name, glob) for glob in globs)}
        if matched != set(own):
            yield _otherwise("adapter.also_train", list(globs), f"[{', '.join(adapter.also_train)}]", source)


def _otherwise(key: str, value: object, its: str, source: AdapterSource) -> Problem:
    rule = f"{its}, as {source.path} says, which {KEY} begins with"
    by = "merge_and_unload of peft" if source.stored is None else f"scripts/export_hf.py {source.path} DIRECTORY"
    remedy = f"leave {key} out; or merge it into its base ({by}), and begin with that: model.init_from=DIRECTORY"
    return Problem(key, value, rule, remedy)
