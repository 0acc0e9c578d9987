"""What a rank does in the test of gradients that are not finite."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from tests.distributed.matrix_worker import bring_up, load, one_step
from trainer.backends.neuron.backend import NeuronBackend
from trainer.data.corpus import prepare_corpus

GOOD = 4
"""Steps. The poisoned ones come after the second, when moments are not zero."""


def poison(layout: str, precision: str, cases: list[tuple[int, str, str]]) -> dict[str, Any]:
    """Train; between two good steps, for each (rank, part of a parameter's name, value), take a step in which that
    rank's gradient has the value in one place. Learning rate, loss and batch of that step are as in any other.

    good: each good step's metrics and a digest of this rank's state after it. bad: per case, whether this rank put the
    value in, and its metrics and digest.
    """
    backend, config, derived = bring_up(layout, precision, "neuron")
    batches = load(backend, config, derived, prepare_corpus(config.data, config.model.vocab))
    good, bad = [], []
    for step in range(GOOD):
        batch = next(batches)
        if step == 2:
            for rank, ending, value in cases:
                backend.forward_backward(batch.microbatches, scale=1.0 / 400)
                put = backend.mesh.rank == rank and _put(backend, ending, float(value))
                metrics = backend.fetch(backend.clip_and_apply(1e-3))
                bad.append({"put": put, "metrics": [str(value) for value in metrics], "state": digest(backend)})
        line = one_step(backend, config, derived, batch, step)
        good.append({**line, "state": digest(backend), "updates": updates(backend)})
    backend.close()
    return {"good": good, "bad": bad}


def _put(backend: NeuronBackend, ending: str, value: float) -> bool:
    """Put a value into one gradient, outside padding. False where this rank has no such parameter."""
    for name, shard in backend._zero.shards.items():
        for piece in backend._host._locals[name].pieces:
            if ending in piece.name and piece.placement.boxes:
                first = [place.start for place in piece.placement.boxes[-1].local]
                first[0] += piece.row
                shard.main_grad[tuple(first)] = value  # type: ignore[attr-defined]
                return True
    return False


def updates(backend: NeuronBackend) -> float:
    """How many updates the optimizer has made."""
    return float(backend._zero.base_optimizer.updates.item())


def digest(backend: NeuronBackend) -> str:
    """Of every bit that a step may change: weights, masters, moments and the update count."""
    found = hashlib.sha256()
    shards, moments = backend._zero.shards, backend._zero.moments()
    tensors = {f"weight {name}": parameter for name, parameter in backend._parameters.items()}
    tensors |= {f"master {name}": shard for name, shard in shards.items()}
    tensors |= {f"{moment} {name}": tensor for moment, name, tensor in moments}
    for name, tensor in [*tensors.items(), ("updates", backend._zero.base_optimizer.updates)]:
        found.update(name.encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
