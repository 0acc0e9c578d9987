"""What a model family gives, and how model.family finds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from trainer.batch import Batch
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.plugins import call_named, told
from trainer.errors import ConfigError, Problem, RunError
from trainer.models.adapters.attach import adapt
from trainer.models.dropout import locate, refuse_generators
from trainer.models.embedding import sum_in_fp32
from trainer.models.families import FAMILIES
from trainer.parallel.plan import FROZEN, Plan

KEY = "model.family"
OWN_WEIGHTS = AdapterConfig()
"""No adapter."""


@dataclass(frozen=True)
class Family:
    """A plain model and its sharding plan, for one configuration.

    build: makes the model; called under the meta device, so it allocates nothing. Its interface is that of
    trainer.models.decoder.CausalLM. plan: a rule for every parameter.
    """

    build: Callable[[], nn.Module]
    plan: Plan


INTERFACE = ("keep_stage", "canonical_names", "materialised", "logits")
"""Methods of trainer.models.decoder.CausalLM that a backend calls, besides forward with the fields of a Batch."""


def family_of(config: ModelConfig, adapter: AdapterConfig = OWN_WEIGHTS) -> Family:
    """The family that model.family names, with what model.frozen and adapter say. It is built once, on meta, to look
    at.

    Raises ConfigError where it cannot be imported, is not what a backend needs, or draws what layouts would draw
    differently.
    """
    made = call_named(KEY, FAMILIES.get(config.family, config.family), config)
    if not isinstance(made, Family) or not isinstance(made.plan, Plan):
        kind = type(made).__name__ if not isinstance(made, Family) else f"one whose plan is {type(made.plan).__name__}"
        raise _wrong(config.family, f"a maker that returns a trainer.models.family.Family, not {kind}")
    try:
        with torch.device("meta"):
            model: Any = made.build()
    except RunError:
        raise
    except Exception as error:  # whatever a user's builder does
        raise _wrong(config.family, f"its builder makes a model ({told(error)})") from error
    _refuse_other_interfaces(model, config.family)
    locate(model)
    refuse_generators(model, config.family)
    if config.family not in FAMILIES:
        _try(model, config.family)
    build: Callable[[], nn.Module] = partial(_prepared, made.build)
    plan = made.plan
    if adapter.kind != "none":
        build, plan = adapt(build, plan, model, adapter)
    names = list(model.canonical_names().values())
    plan = plan.freezing(config.frozen, names) if config.frozen else plan
    if not any(rule.trainable for rule in plan.match(names).values()):
        if config.frozen:
            rule = f"a parameter is left to train; the globs match all of {', '.join(plan.trained)}"
            raise ConfigError(Problem(FROZEN, list(config.frozen), rule, "leave one of them out"))
        raise _wrong(config.family, "a rule of its plan leaves a parameter to train")
    return replace(made, build=build, plan=plan)


def shapes_of(family: Family) -> dict[str, tuple[int, ...]]:
    """Of its parameters, by canonical name."""
    with torch.device("meta"):
        model: Any = family.build()
    names = model.canonical_names()
    return {names[name]: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _prepared(build: Callable[[], nn.Module]) -> nn.Module:
    """A subclass may have added dropouts of its own after the decoder's were told their places, and embeddings."""
    model = build()
    locate(model)
    sum_in_fp32(model)
    return model


def _refuse_other_interfaces(model: Any, family: str) -> None:
    """What a backend would trip over later, in the middle of something."""
    missing = [name for name in INTERFACE if not hasattr(model, name)]
    if missing:
        lacks = f"{type(model).__name__} has no {missing[0]}"
        raise _wrong(family, f"its model has the interface of trainer.models.decoder.CausalLM; {lacks}")
    forward: Any = model.forward
    try:
        inspect.signature(forward).bind(*Batch._fields)
    except TypeError as error:
        raise _wrong(family, f"its model's forward takes {', '.join(Batch._fields)}: {error}") from error
    names, own = model.canonical_names(), [name for name, _ in model.named_parameters()]
    if not isinstance(names, dict) or sorted(names) != sorted(own):
        raise _wrong(family, f"canonical_names gives a name to each of its {len(own)} parameters")


def _try(model: Any, family: str) -> None:
    """A forward pass on meta: what fails there would fail later, on some ranks only where there is a pipeline."""
    try:
        model(*torch.zeros((len(Batch._fields), 1, 8), dtype=torch.int64, device="meta"))
    except RunError:
        raise
    except Exception as error:  # whatever a user's model does
        raise _wrong(family, f"its model takes a batch ({told(error)})") from error


def _wrong(family: str, rule: str) -> ConfigError:
    return ConfigError(Problem(KEY, family, rule, "see docs/extending.md"))
