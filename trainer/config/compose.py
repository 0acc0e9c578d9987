"""From a composed Hydra configuration to a frozen Config, with every wrong key and type reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.mistakes import problems_in
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem

COMPOSITION_KEYS = ("defaults", "hydra")
"""Keys of a saved config.yaml that speak to Hydra, not to us."""
RENAMED = {"backend.world": "parallel.cores", "backend.rank": "rehearsal.rank"}
"""Keys that an older version wrote into config.yaml, and what they are called now."""


def schema_node(kind: type = Config) -> DictConfig:
    """A schema as an OmegaConf node that a whole tree of values may be merged into, for a frozen object.

    OmegaConf makes a frozen dataclass read-only already as a node; only the finished object has to be.
    """
    node: DictConfig = OmegaConf.structured(kind)
    _thaw(node)
    return node


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of values with the keys that have another name by now moved there; a value under the new name wins."""
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for old, new in RENAMED.items():
        (group, key), (new_group, new_key) = old.split("."), new.split(".")
        source = tree.get(group)
        if not isinstance(source, dict) or key not in source:
            continue
        value, target = source.pop(key), tree.setdefault(new_group, {})
        if isinstance(target, dict) and target.get(new_key) is None:
            target[new_key] = value
    optim = tree.get("optim")
    if isinstance(optim, dict) and "_target_" in optim and isinstance(target := optim.pop("_target_"), str):
        optim["name"] = ":".join(target.rsplit(".", 1))
    return tree


def _thaw(node: Any) -> None:
    OmegaConf.set_readonly(node, None)
    if isinstance(node, DictConfig):
        for key in node:
            child = node._get_node(key)
            if OmegaConf.is_config(child):
                _thaw(child)


def to_config(composed: Mapping[str, Any] | DictConfig) -> Config:
    """The frozen Config. Raises ConfigError naming every unknown key and wrong type."""
    try:
        values = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else dict(composed)
    except OmegaConfBaseException as error:
        raise ConfigError(
            Problem(str(error.full_key), "?", f"{error.msg}".splitlines()[0], "mend the interpolation")
        ) from None
    assert isinstance(values, dict)
    values = renamed({str(key): value for key, value in values.items() if key not in COMPOSITION_KEYS})
    problems = list(problems_in(values))
    if problems:
        raise ConfigError(problems)
    config = OmegaConf.to_object(OmegaConf.merge(schema_node(), values))
    assert isinstance(config, Config)
    return config
