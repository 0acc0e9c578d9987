"""The gradient of one embedding row in a rank, where one token stands everywhere and its gradient hardly differs."""

from __future__ import annotations

from typing import Any

import torch

from tests.distributed.matrix_worker import bring_up
from trainer.batch import Batch

TOKEN, LABEL, SEQ = 7, 9, 256


def row(layout: str, precision: str, name: str) -> list[list[float]]:
    """One optimizer step of eight samples of 256 tokens: of this rank's copies of the row, the step's gradient.

    After one step the first moment is (1 - beta1) times the clipped gradient. name: native or neuron.
    """
    backend, config, derived = bring_up(layout, precision, name)
    try:
        microbatches = [batch(config.train.microbatch) for _ in range(derived.accumulation)]
        backend.forward_backward(microbatches, 1 / (derived.samples_per_step * SEQ))
        _, norm, finite = backend.fetch(backend.clip_and_apply(1e-3))
        assert finite
        share = (1 - config.optim.beta1) * min(1.0, config.optim.clip_norm / (norm + 1e-6))
        return [(values.float() / share).tolist() for values in copies(backend)]
    finally:
        backend.close()


def batch(samples: int) -> Batch:
    """Samples of one token, which another is to follow."""
    tokens = torch.full((samples, SEQ), TOKEN)
    positions = torch.arange(SEQ).expand(samples, SEQ).contiguous()
    return Batch.undrawn(tokens, torch.full_like(tokens, LABEL), positions, torch.zeros_like(tokens))


def copies(backend: Any) -> list[torch.Tensor]:
    """The row in this rank's boxes of the first moment."""
    placed = backend.store().optimizer.get("exp_avg.model.embed_tokens.weight")
    boxes = () if placed is None else placed.boxes
    found = [(box, TOKEN - box.offsets[0]) for box in boxes]
    return [box.of(placed.tensor)[place] for box, place in found if 0 <= place < box.sizes[0]]
