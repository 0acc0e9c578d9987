"""The schema as Hydra composes it: the same names, types and defaults, in dataclasses that are not frozen.

OmegaConf marks every node of a frozen dataclass read-only, the elements of a list too: data.sources.0.weight=2 would be
refused. Only the finished Config has to be frozen (trainer.config.compose.to_config).
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config.schema import Config


def composable_schema() -> DictConfig:
    """The schema as a node that YAML and overrides may be merged into, elements of lists included.

    Hydra closes everything but what is opened here: a user's own options, and groups that an older version's keys were
    in (RENAMED in trainer.config.compose); trainer.config.mistakes reports any other key.
    """
    node: DictConfig = OmegaConf.structured(thawed(Config))
    own = (node.optim.options, node.model.options, node.backend.options, node.launcher.options)
    cluster = node.launcher.kubernetes
    maps = (node.launcher.environment, cluster.resources, cluster.node_selector, node.launcher.batch.secrets)
    for group in (node.optim, node.backend, *maps, *own):
        OmegaConf.set_struct(group, False)
    return node


@functools.cache
def thawed(schema: type) -> type:
    """A frozen dataclass's twin that is not frozen, and so down to the dataclasses in its fields and lists."""
    kinds = typing.get_type_hints(schema)
    twins = [(field.name, *_twin(field, kinds[field.name])) for field in dataclasses.fields(schema)]
    return dataclasses.make_dataclass(schema.__name__, twins)


def _twin(field: dataclasses.Field[Any], kind: Any) -> tuple[Any, Any]:
    """The type and the default of a field."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        assert field.default_factory is kind, f"{field.name}: a group's default is the group with its defaults"
        return thawed(kind), dataclasses.field(default_factory=thawed(kind))
    if typing.get_origin(kind) is list:
        (element,) = typing.get_args(kind)
        if dataclasses.is_dataclass(element) and isinstance(element, type):
            kind = list[thawed(element)]  # type: ignore[misc]
    if field.default_factory is not dataclasses.MISSING:
        return kind, dataclasses.field(default_factory=field.default_factory)
    return kind, dataclasses.field(default=field.default)
