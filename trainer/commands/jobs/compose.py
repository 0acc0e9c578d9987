"""A job's training as scripts/train.py would compose it, without a command line of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException

from trainer.commands import entry
from trainer.config.diagnose import diagnose
from trainer.config.elements import CONF
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.launchers.asking import configuration_problems, world_of
from trainer.run.world import World


@dataclass(frozen=True)
class Composed:
    """A valid training. world: the processes that it will have. overrides: of scripts/train.py."""

    config: Config
    world: World
    overrides: tuple[str, ...]


def composed(overrides: Sequence[str]) -> Composed:
    """Raises ConfigError with every problem of the configuration, on the launcher's machines."""
    entry.register_schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            found = compose("train", overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise diagnose(list(overrides), error, []) from None
    HydraConfig.instance().set_config(found)
    with open_dict(found):
        del found["hydra"]
    config, _ = entry.configure(found, World())
    world = world_of(config, World())
    if problems := configuration_problems(config, world):
        raise ConfigError(problems)
    return Composed(config, world, tuple(overrides))
