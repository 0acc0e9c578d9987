"""Unknown keys and wrong types, each with the name or the form that was probably meant."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.keys import all_keys, element_dataclass, fields
from trainer.config.schema import Config
from trainer.errors import Problem


def problems_in(values: Mapping[str, Any], schema: type = Config, prefix: str = "") -> Iterator[Problem]:
    """Unknown keys and wrong types in a plain tree of values, held against the schema."""
    types = typing.get_type_hints(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in types:
            yield unknown_key(key, value)
            continue
        kind = types[name]
        if name == "recipe" and isinstance(value, Mapping):
            yield Problem(key, "(a mapping)", "a recipe begins with the line: # @package _global_", "add that line")
            continue
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            if isinstance(value, Mapping):
                yield from problems_in(value, kind, f"{key}.")
            else:
                yield Problem(key, value, "a group of values", f"set its fields: {key}.{fields(kind)[0]}=...")
        elif (element := element_dataclass(kind)) is not None and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from problems_in(item, element, f"{key}[{index}].")
                else:
                    yield Problem(f"{key}[{index}]", item, "a mapping", f"with {', '.join(fields(element))}")
        else:
            yield from _leaf_problem(schema, name, key, value, kind)


def _leaf_problem(schema: type, name: str, key: str, value: Any, kind: Any) -> Iterator[Problem]:
    if value == "???" or (isinstance(value, list) and "???" in value):
        yield Problem(key, value, "has a value: ??? marks one that is still to be given", f"set {key}=...")
        return
    node = OmegaConf.structured(schema)
    OmegaConf.set_readonly(node, False)
    try:
        node[name] = value
    except OmegaConfBaseException:
        written = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        is_list = typing.get_origin(kind) is list and not isinstance(value, list)
        remedy = f"write {key}=[{value}]" if is_list else f"see {key} in trainer/config/schema.py"
        yield Problem(key, value, f"of type {written}", remedy)


def unknown_key(key: str, value: object) -> Problem:
    """The problem of a key that the schema does not have, with its nearest valid neighbour."""
    if (near := nearest_key(key)) is not None:
        return Problem(key, value, "a key of the schema", f"did you mean {near}?")
    return Problem(key, value, "a key of the schema", "trainer/config/schema.py and --cfg job list the keys")


def nearest_key(key: str) -> str | None:
    """The valid key that was probably meant: alike as a whole, or alike in its last part."""
    keys = all_keys()
    tail = key.rpartition(".")[2]
    if "[" in key:
        sources = [f"{key.rpartition('.')[0]}.{name}" for name in _element_names(key)]
        close = difflib.get_close_matches(key, sources, n=1, cutoff=0.6)
        return close[0] if close else None
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


def _element_names(key: str) -> list[str]:
    parent = key.partition("[")[0]
    schema: Any = Config
    for part in parent.split("."):
        schema = typing.get_type_hints(schema)[part]
    element = element_dataclass(schema)
    return fields(element) if element is not None else []
