"""Where a recipe can be launched on trn1, and how: command lines rendered from its configuration. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainer.config import Config
from trainer.derive import model_parallel_size
from trainer.errors import ConfigError, Problem
from trainer.neuron_rules import job, neuron_machine
from trainer.trainium.command import describe
from trainer.trainium.topology import CORES_OF_A_NODE
from trainer.validate import batch, layout
from trainer.world import World


def launches(config: Config, overrides: Sequence[str], nodes: int | None) -> Iterator[str]:
    """Lines for people: the command on one node and on several, or why it cannot be. nodes: for so many only.

    Raises ConfigError where ``nodes`` cannot run this configuration.
    """
    if nodes is not None and nodes < 1:
        raise ConfigError(Problem("--nodes", nodes, "1 or more", "leave it out for the recipe's own"))
    config = replace(config, backend=replace(config.backend, name="neuron"))
    script = ["scripts/train.py", *(shlex.quote(o) for o in _on_trainium(overrides))]
    for count in [nodes] if nodes is not None else [1, several(config)]:
        world = World(size=CORES_OF_A_NODE * count, trainium=True, local_size=CORES_OF_A_NODE)
        problems = [problem for rule in (batch, layout, neuron_machine) for problem in rule(config, world)]
        if problems and nodes is not None:
            raise ConfigError(problems)
        if problems:
            yield f"{'one node' if count == 1 else f'{count} nodes'}: not for this configuration"
            yield from (f"    {problem}" for problem in problems)
        else:
            yield from describe(count, config.run.name or "run", script, job(config, world))
        yield ""


def several(config: Config) -> int:
    """Nodes to show: those that the recipe's batch is meant for, or the fewest above one that hold whole copies."""
    meant = (config.backend.world or 0) // CORES_OF_A_NODE
    return max(2, meant, -(-model_parallel_size(config) // CORES_OF_A_NODE))


def _on_trainium(overrides: Sequence[str]) -> list[str]:
    """The overrides, without those that rehearse: backend.world and backend.rank mean nothing on devices."""
    return [o for o in overrides if not o.startswith(("backend.world=", "backend.rank=", "backend=fake"))]
