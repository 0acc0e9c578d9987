"""The dotted keys of the schema, and trees of values by them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from trainer.config.schema import Config


def fields(schema: type) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


def element_dataclass(kind: Any) -> type | None:
    for argument in typing.get_args(kind):
        if isinstance(argument, type) and dataclasses.is_dataclass(argument):
            return argument
    return None


def all_keys(schema: type = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, groups included."""
    keys = []
    for name, kind in typing.get_type_hints(schema).items():
        keys.append(prefix + name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            keys += all_keys(kind, f"{prefix}{name}.")
    return keys


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of values as {dotted key: leaf}; lists are leaves."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = value
    return leaves
