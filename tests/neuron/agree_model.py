"""A toy language model of NxD's layers, traceable by its pipeline, and how ranks tell of it: for agree_*.py.

Imported where NxD is on the path only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from neuronx_distributed.parallel_layers import (
    ColumnParallelLinear,
    ParallelEmbedding,
    RowParallelLinear,
    parallel_cross_entropy,
    parallel_state,
)
from torch import nn

BATCH, SEQUENCE, HIDDEN, WIDE, VOCAB = 2, 8, 8, 16, 24
MARKS = ("tensor_model_parallel", "partition_dim", "partition_stride", "num_partitions", "sequence_parallel_enabled")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def start(**sizes: int) -> Any:
    """Join the gloo world and make NxD's groups; its parallel_state."""
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(**sizes)
    return parallel_state


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same numbers on every rank."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def told(tensor: torch.Tensor | None) -> Any:
    """Shape, dtype and values of a tensor."""
    if tensor is None:
        return None
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "values": tensor.detach().float().flatten().tolist(),
    }


def marked(parameter: torch.Tensor) -> dict[str, Any]:
    """NxD's marks on a parameter."""
    return {mark: getattr(parameter, mark, None) for mark in MARKS}


class Norm(nn.Module):
    """RMS norm with a gain."""

    def __init__(self, hidden: int, sequence_parallel: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden, dtype=dtype))
        self.weight.sequence_parallel_enabled = sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> the same."""
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


class Block(nn.Module):
    """Norm, up, down, residual."""

    def __init__(self, hidden: int, wide: int, sequence_parallel: bool, dtype: torch.dtype) -> None:
        super().__init__()
        options = {"dtype": dtype, "reduce_dtype": dtype, "sequence_parallel_enabled": sequence_parallel}
        options["sequence_dimension"] = 0
        self.norm = Norm(hidden, sequence_parallel, dtype)
        self.up = ColumnParallelLinear(hidden, wide, gather_output=False, **options)
        self.down = RowParallelLinear(wide, hidden, input_is_parallel=True, **options)

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """gain: a tensor from the first stage that every block needs."""
        return x + self.down(F.silu(self.up(self.norm(x)))) * gain.mean()


class Toy(nn.Module):
    """Embedding, blocks, norm, head and loss."""

    def __init__(
        self, vocab: int, hidden: int, wide: int, layers: int, sequence_parallel: bool, dtype: torch.dtype, tied: bool
    ) -> None:
        super().__init__()
        self.sequence_parallel = sequence_parallel
        self.embed = ParallelEmbedding(vocab, hidden, dtype=dtype, sequence_parallel_enabled=sequence_parallel)
        self.layers = nn.ModuleDict({str(i): Block(hidden, wide, sequence_parallel, dtype) for i in range(layers)})
        self.norm = Norm(hidden, sequence_parallel, dtype)
        self.head = ColumnParallelLinear(
            hidden,
            vocab,
            bias=False,
            gather_output=False,
            dtype=dtype,
            reduce_dtype=dtype,
            sequence_parallel_enabled=sequence_parallel,
            sequence_dimension=0,
        )
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss over the microbatch, FP32."""
        x = self.embed(ids)
        gain = (ids % 5).float() / 4 + 0.5
        for layer in self.layers.values():
            x = layer(x, gain)
        logits = self.head(self.norm(x))
        if self.sequence_parallel:
            logits = logits.transpose(0, 1).contiguous()
        return parallel_cross_entropy(logits.float(), targets).mean()


def small_model(
    sequence_parallel: bool, dtype: torch.dtype = torch.float32, layers: int = 1, tied: bool = False
) -> Any:
    """A toy language model of NxD's layers: ids and targets [batch, sequence] -> (mean loss)."""
    torch.manual_seed(9)
    return Toy(VOCAB, HIDDEN, WIDE, layers, sequence_parallel, dtype, tied)
