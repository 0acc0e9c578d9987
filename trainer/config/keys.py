"""The dotted keys of the schema, and trees of values by them."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from trainer.config.schema import Config

INDEXED = re.compile(r"(?P<list>[\w.]+)\.(?P<index>\d+)(\.(?P<field>.+))?")
"""A key of one element of a list: data.sources.0.weight."""


def fields(schema: type) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


def element_dataclass(kind: Any) -> type | None:
    for argument in typing.get_args(kind):
        if isinstance(argument, type) and dataclasses.is_dataclass(argument):
            return argument
    return None


def element_of(key: str, root: type = Config) -> type | None:
    """The dataclass that a key of root such as data.sources.0 names an element of; None for any other key."""
    parent, _, index = key.rpartition(".")
    if not re.fullmatch(r"\d+", index):
        return None
    schema: Any = root
    for part in parent.split("."):
        schema = typing.get_type_hints(schema).get(part) if dataclasses.is_dataclass(schema) else None
        if schema is None:
            return None
    return element_dataclass(schema)


def is_element_key(key: str) -> bool:
    """Whether a key names an element of a list of the schema, or a field of one, whatever the list's length."""
    match = INDEXED.fullmatch(key)
    element = element_of(f"{match['list']}.{match['index']}") if match else None
    return match is not None and element is not None and (match["field"] or "").split(".")[0] in ("", *fields(element))


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
