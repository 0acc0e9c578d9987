"""Compile every graph of a run before it runs: python scripts/precompile.py recipe=deepseek7b backend=neuron [...]

--dry-run              extract, and say what is not compiled
--jobs N, --gib N      compilations at once; memory of each (default: as many as there is memory for, 64 GiB each)
--retries N            of a graph that fails (default 1)
--store s3://B/P       fetch from a shared cache, and send what is compiled here
--launch "WORDS"       for scripts/launch.py: several nodes; the same command on each
--compiler, --extract  other commands than neuronx-cc and the run itself (docs/precompile.md)
"""

from __future__ import annotations

import sys

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

from collections.abc import Sequence
from itertools import chain

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.commands.precompile.act import Options, act
from trainer.config.schema import Config
from trainer.run.world import World


def show(config: Config, notes: Sequence[str], world: World) -> None:
    """Print each line as it comes: a compilation takes minutes to hours."""
    for line in chain(notes, act(config, list(HydraConfig.get().overrides.task), options, world)):
        print(line, flush=True)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.consider(composed, show)


def take_options() -> Options:
    """Take the command's own flags off the command line."""
    dry = "--dry-run" in sys.argv
    sys.argv[:] = [word for word in sys.argv if word != "--dry-run"]
    return Options(
        compiler=entry.take_text("--compiler") or "neuronx-cc",
        extract=entry.take_text("--extract"),
        launch=entry.take_text("--launch") or "",
        store=entry.take_text("--store"),
        jobs=entry.take_option("--jobs"),
        gib=entry.take_option("--gib"),
        retries=entry.take_option("--retries"),
        dry=dry,
    )


if __name__ == "__main__":
    options = take_options()
    sys.exit(entry.enter(main, launch=False))
