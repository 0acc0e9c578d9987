"""The one place that makes neuronx-distributed's layers, so that their defects (defects.py) are worked around once:
reduce_dtype is the layer's dtype, and the fused grouped-query layer is not used. That one counts replicated heads once
per rank in the norm besides, and sums their gradients at every microbatch; here copies add up once a step
(update/reduction.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from neuronx_distributed.parallel_layers import ColumnParallelLinear, ParallelEmbedding, RowParallelLinear
from neuronx_distributed.parallel_layers.mappings import (
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)

from trainer.backends.common.vocabulary import rows_here
from trainer.lookup import lookup

SEQUENCE_DIM = 1
"""Of activations [batch, seq, hidden]. With one sample a microbatch, as on trn1, the bytes are those of NxD's [seq,
batch, hidden]."""


class Embedding(ParallelEmbedding):
    """NxD's embedding with a gradient whose rows are summed in FP32 (trainer/lookup.py). NxD leaves the sum
    over the ranks to the caller when the sequence is not its first dim.
    """

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[batch, seq] -> [batch, seq, hidden], or this rank's part of the sequence."""
        if self.tensor_model_parallel_size == 1:
            return lookup(tokens, self.weight)
        partial = rows_here(tokens, self.weight, self.start_index)
        if self.sequence_parallel_enabled:
            return reduce_scatter_to_sequence_parallel_region(partial, SEQUENCE_DIM)
        return reduce_from_tensor_model_parallel_region(partial)


@dataclass(frozen=True)
class Layers:
    """Makes layers on the meta device. tp: tensor-parallel size. sequence: sequence parallelism is on."""

    tp: int
    sequence: bool
    dtype: torch.dtype

    def column(self, inputs: int, local_outputs: int, bias: bool = False) -> ColumnParallelLinear:
        """[..., inputs] -> [..., local_outputs]: this rank's output features."""
        return ColumnParallelLinear(
            inputs,
            local_outputs * self.tp,
            bias=bias,
            gather_output=False,
            dtype=self.dtype,
            device=torch.device("meta"),
            sequence_parallel_enabled=self._sequence,
            sequence_dimension=SEQUENCE_DIM if self._sequence else None,
            reduce_dtype=self.dtype,
        )

    def row(self, local_inputs: int, outputs: int, bias: bool = False) -> RowParallelLinear:
        """[..., local_inputs] -> [..., outputs], summed over the ranks; the bias is added to the sum."""
        return RowParallelLinear(
            local_inputs * self.tp,
            outputs,
            bias=bias,
            input_is_parallel=True,
            dtype=self.dtype,
            device=torch.device("meta"),
            sequence_parallel_enabled=self._sequence,
            sequence_dimension=SEQUENCE_DIM if self._sequence else None,
            reduce_dtype=self.dtype,
        )

    def embedding(self, vocab: int, hidden: int) -> Embedding:
        """Tokens [batch, seq] -> activations between blocks."""
        with torch.device("meta"):
            return Embedding(
                vocab,
                hidden,
                dtype=self.dtype,
                device=torch.device("meta"),
                sequence_parallel_enabled=self._sequence,
                sequence_dimension=SEQUENCE_DIM if self._sequence else None,
            )

    @property
    def _sequence(self) -> bool:
        return self.sequence and self.tp > 1
