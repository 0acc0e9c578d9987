"""adapter_config.json: what is computed here, and what is refused by name. No torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, mapping, read, shown
from trainer.config.groups.adapter import AdapterConfig
from trainer.errors import ConfigError, Problem

NAME, WEIGHTS, KEY = "adapter_config.json", "adapter_model.safetensors", "adapter.init_from"
LONGEST = 16 << 20
PREFIX = "base_model.model."
ADDS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it is; others have changed it before training."""
READ = (
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "modules_to_save", "fan_in_fan_out"),
    *("base_model_name_or_path", "init_lora_weights", "bias", "peft_version", "auto_mapping", "task_type"),
    *("revision", "inference_mode", "lora_dropout", "layers_to_transform", "layers_pattern", "exclude_modules"),
    *("megatron_core", "qalora_group_size", "runtime_config", "eva_config", "ensure_weight_tying"),
)
"""Keys that are read, that do not alter what is computed, or that the adapter's tensors say again."""


@dataclass(frozen=True)
class PeftConfig:
    """What an adapter_config.json says. targets: a list of names, or a text (all-linear, a regular expression)."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    targets: tuple[str, ...] | str
    some_layers: bool
    saved: tuple[str, ...]
    """Modules that are there whole."""
    transposed: bool
    base: str | None


def refused(path: Path | str, rule: str, remedy: str) -> ConfigError:
    """What is wrong with a directory that adapter.init_from names, as one problem."""
    return ConfigError(Problem(KEY, str(path), " ".join(rule.split())[:600], remedy))


def read_config(path: Path) -> PeftConfig:
    """Raises ConfigError for what is no LoRA, or one that is not computed here."""
    try:
        values = mapping(read(path / NAME, LONGEST), "it")
        if wrong := next(_others(values), None):
            key, rule, remedy = wrong
            raise refused(path, f"{NAME}: {rule}; it says {key} = {shown(values.get(key))}", remedy)
        return _read(values)
    except FileNotFoundError:
        raise refused(path, f"holds {NAME} and {WEIGHTS}; {NAME} is not there", "name peft's directory") from None
    except Unsound as error:
        raise refused(path, f"{NAME} can be read ({error})", "copy the directory again") from None
    except OSError as error:
        raise refused(path, f"{NAME} can be read ({error.strerror})", "restore access to it") from None


def _others(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, rule and remedy of what is not computed here."""
    elsewhere = "merge it with peft (merge_and_unload), and take the directory that is saved then"
    if values.get("peft_type") != "LORA":
        yield "peft_type", "the adapter is LoRA, DoRA included", elsewhere
    if values.get("bias", "none") != "none":
        yield "bias", "biases are not trained beside it (bias: none)", elsewhere
    if values.get("init_lora_weights", True) not in ADDS:
        yield "init_lora_weights", "it began beside the base as it is; this way changes the base first", elsewhere
    for key, value in values.items():
        if key in ("rank_pattern", "alpha_pattern") and value:
            yield key, "all its modules have one rank and one scale", elsewhere
        elif key not in READ and value not in (None, False, {}, [], ""):
            yield key, "it asks for nothing beyond LoRA, rsLoRA and DoRA", elsewhere
    if values.get("ensure_weight_tying"):
        yield "ensure_weight_tying", "a tied head and its embedding have adapters of their own", elsewhere


def _read(values: Mapping[str, Any]) -> PeftConfig:
    rank, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    if type(rank) is not int or not 1 <= rank < 1 << 20:
        raise Unsound(f"r is {shown(rank)}")
    if type(alpha) not in (int, float) or not 0 < alpha <= sys.float_info.max:
        raise Unsound(f"lora_alpha is {shown(alpha)}")
    targets = values.get("target_modules") or []
    base = values.get("base_model_name_or_path")
    return PeftConfig(
        rank=rank,
        alpha=float(alpha),
        rslora=_switch(values, "use_rslora"),
        dora=_switch(values, "use_dora"),
        targets=targets if isinstance(targets, str) else _names(targets, "target_modules"),
        some_layers=any(values.get(key) is not None for key in ("layers_to_transform", "exclude_modules")),
        saved=_names(values.get("modules_to_save") or [], "modules_to_save"),
        transposed=_switch(values, "fan_in_fan_out"),
        base=base if isinstance(base, str) and base else None,
    )


def _switch(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key) or False
    if type(value) is not bool:
        raise Unsound(f"{key} is {shown(value)}")
    return value


def _names(value: Any, key: str) -> tuple[str, ...]:
    if type(value) is not list or any(type(one) is not str or not one for one in value):
        raise Unsound(f"{key} is {shown(value)}, not a list of names")
    return tuple(value)


def written(
    adapter: AdapterConfig, targets: list[str], saved: list[str], transposed: bool, base: str
) -> dict[str, Any]:
    """What an adapter_config.json says that peft 0.17 and 0.21 read, key by key as they write it."""
    alpha = adapter.alpha
    return {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_bias": False,
        "lora_dropout": adapter.dropout,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": saved or None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": adapter.dora,
        "use_rslora": adapter.rslora,
    }
