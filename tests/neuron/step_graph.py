"""A training step of the tiny recipe, one process, as the graph that XLA on a CPU is handed. Nothing of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.neuron.pretended import blank, pretend, sharded, without_running
from tests.recipes.test_full_size import configured
from trainer.backends.neuron import device
from trainer.backends.neuron.graphs import hlo, pending
from trainer.parallel.mesh import Mesh
from trainer.rules.derived import derive
from trainer.run.world import World

FUNCTIONS = ("exponential", "log", "cosine", "sine", "rsqrt")
"""What softmax, loss, rotary tables and norms are made of."""


def squares(text: str, seq_len: int) -> Iterator[str]:
    """Shapes with two dims of a sample's length or more."""
    for line in text.splitlines():
        for shape in hlo.read_shapes(line):
            if sum(dim >= seq_len for dim in shape.dims) >= 2:
                yield str(shape)


def graph(variant: str, seq_len: int | None = None) -> dict[str, Any]:
    """Of one microbatch, then the update. variant: a precision and a recomputation joined by a slash. seq_len: of the
    one sample with its documents apart, in the place of the recipe's, for a model with a small vocabulary.
    """
    config = configured("tiny")
    mode, recompute = variant.split("/")
    if seq_len is not None:
        config = replace(config, data=replace(config.data, seq_len=seq_len, document_mask=True))
        config = replace(config, train=replace(config.train, microbatch=1, tokens_per_step=seq_len))
        config = replace(config, model=replace(config.model, vocab=512))
    config = replace(config, precision=replace(config.precision, mode=mode))
    config = replace(config, parallel=replace(config.parallel, recompute=recompute))
    pretend(Mesh())
    backend = sharded(config, derive(config, World()), Mesh(), device.device())
    with without_running():
        backend.forward_backward([blank(config)], 1.0)
        metrics = backend.clip_and_apply(1e-4)
        moments = [moment for _, _, moment in backend._zero.moments()]
        outputs = [*backend._parameters.values(), *backend._zero.shards.values(), *moments]
        text = pending.text_of([tensor.detach() for tensor in outputs] + [metrics.loss_sum, metrics.grad_norm])
    found = hlo.parse(text)
    return {
        "flops": found.flops,
        "dtypes": sorted({dtype for m in found.matmuls for dtype in (m.lhs.dtype, m.rhs.dtype)}),
        "ranks": sorted({collective.size for collective in found.collectives}),
        "functions": {name: sorted(set(re.findall(rf"= (\w+)\[.* {name}\(", text))) for name in FUNCTIONS},
        "host": found.host,
        "dynamic": found.dynamic,
        "custom_calls": found.custom_calls,
        "squares": sorted(set(squares(text, config.data.seq_len))),
        "barriers": found.ops["opt-barrier"],
    }
