"""The full-size recipes as tests of the neuron backend take them: whole, or shortened. Imports no Neuron library.

``llama3_8b-cp2`` is a recipe over two context-parallel ranks, in the same world; ``-packed``, with documents apart.
"""

from __future__ import annotations

from dataclasses import replace

from tests.recipes.test_full_size import ALL, configured
from trainer.config.schema import Config
from trainer.rules.derived import Derived, derive, effective
from trainer.rules.quantities import pretended
from trainer.run.world import World

CONTEXT = ["llama3_8b-cp2", "llama3_70b-cp2"]
"""No recipe uses context parallelism; these two, of long sequences, would: without a pipeline, and with one."""
PACKED = ["deepseek7b-packed", "deepseek67b-packed"]
"""And these with documents apart, so that attention is blockwise on trn1: without a pipeline, and with one."""
ADAPTED = [recipe for recipe in ALL if configured(recipe).adapter.kind != "none"]
"""tests/neuron/test_full_size_adapters.py is about these: what stands beside frozen weights has forms of its own."""
CASES = [*(recipe for recipe in ALL if recipe not in ADAPTED), *CONTEXT, *PACKED]
SENDING = [case for case in CASES if configured(case.partition("-")[0]).parallel.cores != 1]
"""Those of more than one rank."""
LAYERS = 2
"""Of a shortened recipe without pipeline; with one, a stage has one."""


def named(case: str) -> Config:
    """The configuration of a case."""
    recipe, _, changed = case.partition("-")
    config = configured(recipe)
    if changed == "packed":
        return replace(config, data=replace(config.data, document_mask=True))
    return replace(config, parallel=replace(config.parallel, cp=int(changed[2:] or config.parallel.cp)))


def planned(recipe: str, layers: int | None = None) -> tuple[Config, Derived]:
    """A recipe as it runs at its full world size; shortened to some layers, and to few microbatches, where asked."""
    config = named(recipe)
    world = pretended(config, World(cpu_bf16=True))
    if layers is not None:
        # With a pipeline one more than its stages, so that the schedule is the full-size recipe's.
        microbatches = config.parallel.pp + 1 if config.parallel.pp > 1 else 1
        copies = world.size // (config.parallel.tp * config.parallel.pp * config.parallel.cp)
        tokens = microbatches * config.train.microbatch * copies * config.data.seq_len
        config = replace(config, model=replace(config.model, layers=layers, published_parameters=None))
        config = replace(config, train=replace(config.train, tokens_per_step=tokens))
        evenly = replace(config.parallel.pipeline, cuts=[])
        config = replace(config, parallel=replace(config.parallel, pipeline=evenly))
    derived = derive(config, world)
    return effective(config, derived), derived


def short(recipe: str) -> int:
    """Layers of the shortened recipe."""
    pp = named(recipe).parallel.pp
    return pp if pp > 1 else LAYERS


def replicas(config: Config, derived: Derived) -> int:
    """Ranks that hold the same weights."""
    return config.parallel.cp * derived.dp


def ranks_of_stages(config: Config, derived: Derived) -> list[list[int]]:
    """Of each stage the first rank, the second and the last, as far as there are so many."""
    each = config.parallel.tp * replicas(config, derived)
    return [
        [stage * each + rank for rank in sorted({0, min(1, each - 1), each - 1})] for stage in range(config.parallel.pp)
    ]
