"""How to start a recipe on trn1: torchrun for one node and for several, with a reason for each argument and variable.

python scripts/command.py recipe=deepseek67b [--nodes 4] [overrides]      --nodes: for so many only
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.commands.command import launches
from trainer.config.schema import Config


def show(config: Config) -> Iterator[str]:
    """The command lines of this recipe, with the overrides that were given here."""
    return launches(config, list(HydraConfig.get().overrides.task), nodes)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.inspect(composed, show)


if __name__ == "__main__":
    nodes = entry.take_option("--nodes")
    sys.exit(entry.enter(main, launch=False))
