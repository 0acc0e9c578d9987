"""Unknown keys and wrong types, each with the name or the form that was probably meant."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.keys import all_keys, element_dataclass, element_of, fields
from trainer.config.numbers import whole
from trainer.config.schema import Config
from trainer.errors import Problem


def problems_in(
    values: Mapping[str, Any], schema: type = Config, prefix: str = "", root: type = Config
) -> Iterator[Problem]:
    """Unknown keys and wrong types in a plain tree of values, held against the schema.

    prefix: of the keys, where the tree is a part of a whole one. root: the schema of the whole.
    """
    types = typing.get_type_hints(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in types:
            yield unknown_key(key, value, root)
            continue
        kind = types[name]
        if name == "recipe" and isinstance(value, Mapping):
            yield Problem(key, "(a mapping)", "a recipe begins with the line: # @package _global_", "add that line")
            continue
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            if isinstance(value, Mapping):
                yield from problems_in(value, kind, f"{key}.", root)
            else:
                yield Problem(key, value, "a group of values", f"set its fields: {key}.{fields(kind)[0]}=...")
        elif (items := _items(kind, value)) is not None:
            yield from _element_problems(schema, name, key, items, root)
        else:
            yield from _leaf_problem(schema, name, key, value, kind)


def _items(kind: Any, value: object) -> dict[str, Any] | None:
    """What a value says about single elements of a list, by index; None where it does not.

    A mapping from indices is what overrides of single elements come to: data.sources.0.weight=2.
    """
    if typing.get_origin(kind) is not list:
        return None
    if isinstance(value, Mapping) and value and all(re.fullmatch(r"\d+", str(index)) for index in value):
        return {str(index): item for index, item in value.items()}
    if isinstance(value, list) and element_dataclass(kind) is not None:
        return {str(index): item for index, item in enumerate(value)}
    return None


def _element_problems(schema: type, name: str, key: str, items: Mapping[str, Any], root: type) -> Iterator[Problem]:
    kind = typing.get_type_hints(schema)[name]
    element = element_dataclass(kind)
    for index, item in items.items():
        if element is None:
            yield from _leaf_problem(schema, name, f"{key}.{index}", [item], kind)
        elif isinstance(item, Mapping):
            yield from problems_in(item, element, f"{key}.{index}.", root)
        else:
            yield Problem(f"{key}.{index}", item, "a mapping", f"with {', '.join(fields(element))}")


def _leaf_problem(schema: type, name: str, key: str, value: Any, kind: Any) -> Iterator[Problem]:
    items = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    if "???" in items:
        yield Problem(key, value, "has a value: ??? marks one that is still to be given", f"set {key}=...")
        return
    node = OmegaConf.structured(schema)
    OmegaConf.set_readonly(node, False)
    try:
        node[name] = value
    except OmegaConfBaseException:
        written = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        yield Problem(key, value, f"of type {written}", _in_its_type(key, value, kind))


def _in_its_type(key: str, value: Any, kind: Any) -> str:
    """The remedy for a value of another type than its key's: how to write it, where that can be told."""
    kinds = {kind, *typing.get_args(kind)}
    if typing.get_origin(kind) is list:
        return _in_its_list(key, value, kinds)
    if typing.get_origin(kind) is dict:
        return f"write names and their values: {key}={{NAME: VALUE}}"
    if bool in kinds:
        return f"write {key}=true or {key}=false"
    if float in kinds:
        number = whole(value)
        return f"write {key}={number}" if number is not None else f"write a number: {key}=0.5, say"
    if int not in kinds:
        return f"see {key} in trainer/config/schema.py"
    if (number := whole(value)) is not None:
        return f"write {key}={number}"
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 1e15:
        return f"write a whole number: {key}={math.floor(value)} or {key}={math.ceil(value)}"
    return f"write a whole number in digits: {key}=1000, say"


def _in_its_list(key: str, value: Any, kinds: set[Any]) -> str:
    if not isinstance(value, list):
        return f"write {key}=[{value}]"
    numbers = [whole(item) for item in value]
    if int in kinds and numbers and None not in numbers:
        return f"write {key}=[{','.join(map(str, numbers))}]"
    return f"see {key} in trainer/config/schema.py"


def unknown_key(key: str, value: object, root: type = Config) -> Problem:
    """The problem of a key that the schema root does not have, with its nearest valid neighbour."""
    if (near := nearest_key(key, root)) is not None:
        return Problem(key, value, "a key of the schema", f"did you mean {near}?")
    return Problem(key, value, "a key of the schema", "trainer/config/schema.py and --cfg job list the keys")


def nearest_key(key: str, root: type = Config) -> str | None:
    """The valid key of root that was probably meant: alike as a whole, or alike in its last part."""
    keys = all_keys(root)
    parent, _, tail = key.rpartition(".")
    if (element := element_of(parent, root)) is not None:
        close = difflib.get_close_matches(tail, fields(element), n=1, cutoff=0.6)
        return f"{parent}.{close[0]}" if close else None
    siblings = [k for k in keys if k.rpartition(".")[0] == key.rpartition(".")[0]]
    for pool in (siblings, keys):
        if close := difflib.get_close_matches(key, pool, n=1, cutoff=0.75):
            return close[0]
    exact = [k for k in keys if k.rpartition(".")[2] == tail]
    if exact:
        return min(exact, key=len)
    tails = {k.rpartition(".")[2]: k for k in keys}
    close = difflib.get_close_matches(tail, list(tails), n=1, cutoff=0.75)
    return tails[close[0]] if close else None
