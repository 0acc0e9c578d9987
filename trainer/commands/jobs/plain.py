"""YAML as a job file means it: what is said twice is a mistake, a day is text, and ${...} stays as it is written."""

from __future__ import annotations

import re
from typing import Any

import yaml

TIMESTAMP = "tag:yaml.org,2002:timestamp"
DEEPEST = 30
"""Levels of a file; job files have five."""


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader takes the last of two equal keys: a gate would be gone, and nobody told."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as its parent has it
        first: [(tag, pattern) for tag, pattern in known if tag != TIMESTAMP]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    why = f"{key.value} stands here twice"
                    raise yaml.constructor.ConstructorError(None, None, why, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def plain(text: str) -> Any:
    """A file's values, of lists, mappings, texts and numbers, at most DEEPEST deep. Raises yaml.YAMLError."""
    try:
        return _tree(yaml.load(text, _Loader), DEEPEST)  # noqa: S506 - a safe loader's child
    except RecursionError:
        raise yaml.YAMLError("its values lie in each other without an end") from None
    except ValueError as error:  # a number of too many digits
        raise yaml.YAMLError(str(error)) from None


def _tree(value: Any, left: int) -> Any:
    """With ${ escaped, which OmegaConf would look up: job files have shells' variables in them, and Hydra's. Exit codes
    are keys, and keys are texts."""
    if not left:
        raise yaml.YAMLError(f"its values lie in each other, more than {DEEPEST} deep")
    if isinstance(value, dict):
        return {str(key) if type(key) is int else key: _tree(item, left - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_tree(item, left - 1) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
