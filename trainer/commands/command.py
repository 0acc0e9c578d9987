"""Where a recipe can be launched on trn1, and how: command lines rendered from its configuration. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.rules.neuron import job
from trainer.rules.quantities import model_parallel_size
from trainer.rules.trn1 import full_nodes, refusals
from trainer.trainium.topology import CORES_OF_A_NODE
from trainer.trainium.torchrun import describe


def launches(config: Config, overrides: Sequence[str], nodes: int | None) -> Iterator[str]:
    """Lines for people: the command on one node and on several, or why it cannot be. nodes: for so many only.

    Raises ConfigError where none of them can run this configuration.
    """
    if nodes is not None and nodes < 1:
        raise ConfigError(Problem("--nodes", nodes, "1 or more", "leave it out for the recipe's own"))
    config = replace(config, backend=replace(config.backend, name="neuron"))
    script = ["scripts/train.py", *(shlex.quote(o) for o in _on_trainium(overrides))]
    counts = [nodes] if nodes is not None else [1, several(config)]
    found = {count: refusals(config, CORES_OF_A_NODE * count) for count in counts}
    if all(found.values()):
        raise ConfigError(found[counts[-1]])
    for count, problems in found.items():
        if problems:
            yield f"{'one node' if count == 1 else f'{count} nodes'}: not for this configuration"
            yield from (f"    {problem}" for problem in problems)
        else:
            yield from describe(
                count, config.run.name or "run", script, job(config, full_nodes(CORES_OF_A_NODE * count))
            )
        yield ""


def several(config: Config) -> int:
    """Nodes to show: those that the recipe's batch is meant for, or the fewest above one that hold whole copies."""
    meant = (config.parallel.cores or 0) // CORES_OF_A_NODE
    return max(2, meant, -(-model_parallel_size(config) // CORES_OF_A_NODE))


def _on_trainium(overrides: Sequence[str]) -> list[str]:
    """The overrides, without those that choose a backend, which is neuron's here, or rehearse."""
    others = ("rehearsal.world=", "rehearsal.rank=", "backend.name=", "backend=")
    return [o for o in overrides if not o.startswith(others)]
