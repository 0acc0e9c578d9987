"""How to start a recipe on trn1: torchrun for one node and for several, with a reason for each argument and variable.

python scripts/command.py recipe=deepseek67b [--nodes 4] [overrides]      --nodes: for so many only
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.reliability.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer import frontdoor
from trainer.config import Config
from trainer.launching import launches


def show(config: Config) -> Iterator[str]:
    """The command lines of this recipe, with the overrides that were given here."""
    return launches(config, list(HydraConfig.get().overrides.task), nodes)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    frontdoor.inspect(composed, show)


if __name__ == "__main__":
    nodes = frontdoor.take_option("--nodes")
    sys.exit(frontdoor.enter(main, launch=False))
