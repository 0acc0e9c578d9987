"""What trn1 would refuse of a configuration, asked on any machine. No torch."""

from __future__ import annotations

from dataclasses import replace

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.grace import grace
from trainer.rules.neuron import neuron, neuron_machine
from trainer.rules.processes import batch, layout
from trainer.run.world import World
from trainer.trainium.topology import CORES_OF_A_NODE


def full_nodes(size: int) -> World:
    """Processes on all cores of trn1.32xlarge nodes, as far as that is known elsewhere."""
    return World(size=size, trainium=True, local_size=min(size, CORES_OF_A_NODE))


def refusals(config: Config, size: int) -> list[Problem]:
    """What trn1 has against a configuration on so many processes, that other machines have not."""
    config, world = replace(config, backend=replace(config.backend, name="neuron")), full_nodes(size)
    return [problem for rule in (batch, layout, neuron, neuron_machine, grace) for problem in rule(config, world)]
