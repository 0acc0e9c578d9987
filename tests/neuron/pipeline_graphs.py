"""A stage of a pipeline, alone in this process, on the lazy path with the compile guard: the graphs that it runs.

Its neighbours' messages are what tests/neuron/alone.py makes of them. Runs in a rank of tests/ranks.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from recipes.parts import make_mesh
from tests.distributed.layouts import configuration, parse
from tests.neuron import alone
from tests.neuron.curves import cut_attention
from tests.neuron.pretended import know_what_is_received, pretend
from trainer.backends.neuron import device
from trainer.backends.neuron.backend import NeuronBackend
from trainer.backends.neuron.graphs.guard import CompileGuard
from trainer.backends.neuron.making import make
from trainer.batch import Batch
from trainer.models.decoder import CausalLM
from trainer.models.initialise import Initialiser
from trainer.models.sharding import sharding_plan
from trainer.rules.derived import derive
from trainer.run.world import World

STEPS = 6


def stage(layout: str, rank: int) -> dict[str, Any]:
    """Six steps, and an evaluation after each second one."""
    cut_attention(layout)
    config = configuration(parse(layout), "fp32", "neuron")
    world = World(size=config.parallel.pp * config.parallel.tp, rank=rank, neuron_on_cpu=True)
    derived = derive(config, world)
    mesh = make_mesh(config, derived, rank)
    pretend(mesh)
    know_what_is_received(config, mesh)
    alone.install()
    backend = make(config, derived, mesh)
    assert isinstance(backend, NeuronBackend)
    looked: Counter[str] = Counter()
    backend.host.gather = lambda value: [value] * mesh.world  # type: ignore[method-assign, misc]  # it is alone
    backend.device = device.device()
    backend.guard = CompileGuard(on_graph=lambda phase, _: looked.update([phase]))
    backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), "fp32")
    backend.load_initial(Initialiser(sharding_plan(config.model), config.seed))
    for number in range(STEPS):
        backend.forward_backward(_batches(derived.accumulation, number), 1.0)
        backend.clip_and_apply(1e-3 * number)
        if number % 2:
            backend.evaluate(_batches(3, number))
    outside = backend.guard.outside()
    return {
        "graphs": backend.guard.graphs(),
        "launches": backend.guard.launches(),
        "looked": looked,
        "outside": [outside.compiled, outside.launched],
    }


def _batches(count: int, seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        tokens = torch.randint(512, (2, 64), generator=generator)
        positions = torch.arange(64).expand(2, 64).contiguous()
        documents = (torch.rand(2, 64, generator=generator) < 0.1).cumsum(1)  # others in every microbatch
        found.append(Batch.undrawn(tokens, tokens, positions, documents))
    return found
