"""How a recipe's model is cut: every parameter, its style, local shape and boxes.

python scripts/plan.py recipe=deepseek67b [--rank 31] [overrides]      --rank: of the tensor-parallel axis, default 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import hydra
from omegaconf import DictConfig

from trainer import frontdoor
from trainer.config import Config
from trainer.errors import ConfigError, Problem

parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--rank", type=int, default=0)


def show(config: Config) -> Iterator[str]:
    """The plan's lines; torch is imported only now."""
    from trainer.planning import describe_plan

    if not 0 <= options.rank < config.parallel.tp:
        rule = f"a rank of the tensor-parallel axis: 0 to {config.parallel.tp - 1}"
        raise ConfigError(Problem("--rank", options.rank, rule, "choose one of them, or a larger parallel.tp"))
    return describe_plan(config, options.rank)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    frontdoor.inspect(composed, show)


if __name__ == "__main__":
    options, sys.argv[1:] = parser.parse_known_args()
    sys.exit(frontdoor.enter(main, launch=False))
