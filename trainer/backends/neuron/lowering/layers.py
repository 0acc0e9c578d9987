"""The one place that makes neuronx-distributed's layers, so that their defects (defects.py) are worked around once:
reduce_dtype is the layer's dtype, and the fused grouped-query layer is not used. That one counts replicated heads once
per rank in the norm besides, and sums their gradients at every microbatch; here copies add up once a step
(update/reduction.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from neuronx_distributed.parallel_layers import ColumnParallelLinear, ParallelEmbedding, RowParallelLinear
from neuronx_distributed.parallel_layers.mappings import reduce_scatter_to_sequence_parallel_region

SEQUENCE_DIM = 1
"""Of activations [batch, seq, hidden]. With one sample a microbatch, as on trn1, the bytes are those of NxD's [seq,
batch, hidden]."""


class SequenceParallelEmbedding(ParallelEmbedding):
    """NxD's embedding leaves the sum over the ranks to the caller when the sequence is not its first dim."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[batch, seq] -> [batch, seq / tp, hidden]."""
        partial = super().forward(tokens)
        return reduce_scatter_to_sequence_parallel_region(partial, SEQUENCE_DIM)


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

    def embedding(self, vocab: int, hidden: int) -> ParallelEmbedding:
        """Tokens [batch, seq] -> activations between blocks."""
        kind = SequenceParallelEmbedding if self._sequence else ParallelEmbedding
        with torch.device("meta"):
            return kind(
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
