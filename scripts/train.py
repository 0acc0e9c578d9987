"""Train a model from a recipe: python scripts/train.py recipe=tiny. Without a recipe, lists them."""

from __future__ import annotations

import sys

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on: the others take seconds

import hydra
from omegaconf import DictConfig

import recipes
from trainer.commands import entry


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.run(composed, recipes.load)


if __name__ == "__main__":
    sys.exit(entry.enter(main))
