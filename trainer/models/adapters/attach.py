"""From a family to the same one with adapters: its model with them put in, and their rules in its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from trainer.config.adapters import scale_of
from trainer.config.groups.adapter import AdapterConfig
from trainer.errors import ConfigError, Problem
from trainer.models.adapters.embedding import LoraEmbedding
from trainer.models.adapters.lora import Lora, LoraLinear
from trainer.models.adapters.rules import ADAPTERS, adapter_rules
from trainer.models.adapters.targets import targeted
from trainer.models.dropout import locate
from trainer.parallel.plan import Plan

ALSO = "adapter.also_train"


def lora_of(config: AdapterConfig) -> Lora:
    """What the adapters of a configuration have in common."""
    return Lora(config.rank, scale_of(config), config.dropout, config.dora)


def adapt(
    build: Callable[[], nn.Module], plan: Plan, model: Any, config: AdapterConfig
) -> tuple[Callable[[], nn.Module], Plan]:
    """What builds the model with adapters, and its plan. model: as ``build`` makes it, which gets them too.

    Raises ConfigError where a target is none, or what it names cannot have an adapter.
    """
    paths, lora = targeted(model, plan, config.targets), lora_of(config)
    if lora.dora and lora.dropout and plan.head in paths:
        rule, remedy = f"0 where {plan.head} has DoRA: the loss takes one weight of it", f"0, or leave {plan.head} out"
        raise ConfigError(Problem("adapter.dropout", config.dropout, rule, remedy))
    base = set(model.canonical_names().values())
    if lora.dropout and not hasattr(model.get_submodule(plan.decoder), "draws_within"):
        rule = f"0 where {plan.decoder} is not trainer.models.decoder.Decoder, which hands keys to its layers"
        raise ConfigError(Problem("adapter.dropout", config.dropout, rule, "set it to 0"))
    _refuse_unmatched(config.also_train, base)
    put_in(model, plan, paths, lora)
    names = model.canonical_names()
    shapes = {names[name]: tuple(p.shape) for name, p in model.named_parameters() if names[name] not in base}
    rules = adapter_rules(plan, shapes, config.lr_ratio)
    return partial(_adapted, build, plan, paths, lora), replace(
        plan, adapters=rules, trained=(*ADAPTERS, *config.also_train)
    )


def _adapted(build: Callable[[], nn.Module], plan: Plan, paths: Iterable[str], lora: Lora) -> nn.Module:
    model = build()
    put_in(model, plan, paths, lora)
    return model


def put_in(model: nn.Module, plan: Plan, paths: Iterable[str], lora: Lora) -> None:
    """Adapters at these paths, in place."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        module: Any = model.get_submodule(path)
        made = LoraLinear(module, lora) if isinstance(module, nn.Linear) else LoraEmbedding(module, lora)
        setattr(model.get_submodule(parent), name, made)
    if lora.dropout:
        for module in (model.get_submodule(plan.decoder), *model.get_submodule(plan.layers).children()):
            module.draws_within = True
        locate(model)


def _refuse_unmatched(globs: Iterable[str], names: Iterable[str]) -> None:
    problems = [
        Problem(ALSO, glob, "each glob matches a parameter of the model", "scripts/plan.py prints all names")
        for glob in globs
        if not any(fnmatchcase(name, glob) for name in names)
    ]
    if problems:
        raise ConfigError(problems)
