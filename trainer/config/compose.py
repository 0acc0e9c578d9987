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


def schema_node() -> DictConfig:
    """The schema as an OmegaConf node that YAML may be merged into.

    OmegaConf makes a frozen dataclass read-only already as a node; only the finished object has to be.
    """
    node: DictConfig = OmegaConf.structured(Config)
    _thaw(node)
    OmegaConf.set_struct(node.optim.options, False)  # a plug-in's own names; Hydra closes everything else
    return node


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
    values = {str(key): value for key, value in values.items() if key not in COMPOSITION_KEYS}
    problems = list(problems_in(values))
    if problems:
        raise ConfigError(problems)
    config = OmegaConf.to_object(OmegaConf.merge(schema_node(), values))
    assert isinstance(config, Config)
    return config
