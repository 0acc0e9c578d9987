"""How a recipe's model is cut: pipeline stages, and every parameter of a rank with its style, local shape and boxes.

python scripts/plan.py recipe=deepseek67b [--rank 127] [overrides]      --rank: of one copy of the model, default 0
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.rules.quantities import model_parallel_size


def show(config: Config) -> Iterator[str]:
    """The plan's lines; torch is imported only now."""
    from trainer.commands.plan import describe_plan

    ranks = model_parallel_size(config)
    if not 0 <= rank < ranks:
        rule = f"a rank of one copy of the model (tp x cp x pp): 0 to {ranks - 1}"
        raise ConfigError(Problem("--rank", rank, rule, "choose one of them"))
    return describe_plan(config, rank)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.inspect(composed, show)


if __name__ == "__main__":
    rank = entry.take_option("--rank") or 0
    sys.exit(entry.enter(main, launch=False))
