"""Seams of what is cut within a block or between blocks besides activations: sums over heads, and positions."""

from __future__ import annotations

import torch
from neuronx_distributed.parallel_layers.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    scatter_to_sequence_parallel_region,
)
from torch import nn

from trainer.backends.neuron.lowering.layers import SEQUENCE_DIM


def total_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Parts of a sum -> the sum, by which every rank goes on with what is its own: gradients add up too."""
    whole: torch.Tensor = copy_to_tensor_model_parallel_region(reduce_from_tensor_model_parallel_region(x))
    return whole


class SequencePart(nn.Module):
    """Positions of this rank's part. A module, since FX, which a pipeline traces with, must not look into it: NxD
    asks whether the sequence divides.
    """

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """[batch, seq] -> [batch, seq / tp]."""
        mine: torch.Tensor = scatter_to_sequence_parallel_region(positions, SEQUENCE_DIM)
        return mine


def whole_sequence(keys: torch.Tensor) -> torch.Tensor:
    """[batch, seq / tp] of what has no gradient -> [batch, seq], on every rank."""
    whole: torch.Tensor = gather_from_sequence_parallel_region(keys, SEQUENCE_DIM)
    return whole
