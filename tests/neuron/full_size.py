"""The full-size recipes as tests of the neuron backend take them: whole, or shortened. Imports no Neuron library."""

from __future__ import annotations

from dataclasses import replace

from tests.recipes.test_full_size import configured
from trainer.config import Config
from trainer.derive import Derived, derive, effective, pretended
from trainer.world import World

MICROBATCHES = 5
"""Of a shortened recipe with a pipeline: one more than its stages, so that the schedule is the full-size recipe's."""
LAYERS = 2
"""Of a shortened recipe without pipeline; with one, a stage has one."""


def planned(recipe: str, layers: int | None = None) -> tuple[Config, Derived]:
    """A recipe as it runs at its full world size; shortened to some layers, and to few microbatches, where asked."""
    config = configured(recipe)
    world = pretended(config, World(cpu_bf16=True))
    if layers is not None:
        microbatches = MICROBATCHES if config.parallel.pp > 1 else 1
        copies = world.size // (config.parallel.tp * config.parallel.pp * config.parallel.cp)
        tokens = microbatches * config.train.microbatch * copies * config.data.seq_len
        config = replace(config, model=replace(config.model, layers=layers, published_parameters=None))
        config = replace(config, train=replace(config.train, tokens_per_step=tokens))
    derived = derive(config, world)
    return effective(config, derived), derived


def short(recipe: str) -> int:
    """Layers of the shortened recipe."""
    pp = configured(recipe).parallel.pp
    return pp if pp > 1 else LAYERS


def ranks_of_stages(config: Config, derived: Derived) -> list[list[int]]:
    """Of each stage the first rank, the second and the last."""
    each = config.parallel.tp * config.parallel.cp * derived.dp
    return [[stage * each, stage * each + 1, (stage + 1) * each - 1] for stage in range(config.parallel.pp)]
