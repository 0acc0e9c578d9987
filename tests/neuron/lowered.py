"""Small graphs on torch_xla's lazy tensors, lowered as rank 0 of 32 and never run.

Each is read twice, from the HLO of its tensors and from the StableHLO of all that is pending: they must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.debug.metrics as metrics
import torch_xla.runtime as runtime
from torch.nn import functional

from trainer.backends.neuron import device
from trainer.backends.neuron.graphs.hlo import Graph
from trainer.backends.neuron.graphs.pending import graph_of, pending_graph

WORLD = 32
GROUPS = [[node * 8 + rank for rank in range(8)] for node in range(4)]


def on_device(*dims: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(dims, dtype=dtype).to(device.device())


def linear(dtype: torch.dtype) -> list[torch.Tensor]:
    """Forward and backward of y = x w^T + b, x [3, 8], w [4, 8]."""
    x, w, b = (on_device(*dims, dtype=dtype).requires_grad_() for dims in ((3, 8), (4, 8), (4,)))
    x.retain_grad()
    leaves = [tensor.detach().requires_grad_() for tensor in (x, w, b)]
    y = functional.linear(*leaves)
    y.sum().backward()
    return [y, *(leaf.grad for leaf in leaves)]


def batched() -> list[torch.Tensor]:
    """[5, 2, 3] times [5, 3, 4], and the same written as an einsum over a transposed right side."""
    a = on_device(5, 2, 3)
    return [torch.bmm(a, on_device(5, 3, 4)), torch.einsum("bij,bkj->bik", a, on_device(5, 4, 3))]


def collectives() -> list[torch.Tensor]:
    x = on_device(16, 4, dtype=torch.bfloat16) * 2.5
    total = xm.all_reduce(xm.REDUCE_SUM, x, groups=GROUPS)
    pair = [on_device(3) * 2.5, on_device(5) * 2.5]
    xm.all_reduce(xm.REDUCE_SUM, pair, groups=[list(range(WORLD))], pin_layout=False)
    whole = xm.all_gather(total, dim=0, groups=GROUPS, pin_layout=False)
    part = xm.reduce_scatter(xm.REDUCE_SUM, whole, 1.0, 0, 8, groups=GROUPS, pin_layout=False)
    ring = xm.collective_permute(part, [[rank, (rank + 1) % 8] for rank in range(8)])
    return [total, *pair, whole, part, ring]


def all_to_all() -> list[torch.Tensor]:
    return [xm.all_to_all(on_device(8, 2) * 2.5, 0, 0, 8, groups=GROUPS)]


def shown(graph: Graph) -> dict[str, Any]:
    return {
        "matmuls": [[m.lhs.dtype, m.rhs.dtype, m.result.dtype, m.batch, m.m, m.n, m.k, m.flops] for m in graph.matmuls],
        "collectives": [[c.kind, c.size, c.dtype, c.bytes, len(c.groups)] for c in graph.collectives],
        "host": graph.host,
        "dynamic": graph.dynamic,
        "outputs": len(graph.outputs),
    }


def read() -> dict[str, Any]:
    """What was read of each graph, and how many have run."""
    runtime.world_size = lambda: WORLD  # torch_xla leaves collectives out of a world of 1
    makers: dict[str, Callable[[], list[torch.Tensor]]] = {
        "linear": lambda: linear(torch.float32),
        "linear-bf16": lambda: linear(torch.bfloat16),
        "batched": batched,
        "collectives": collectives,
        "all-to-all": all_to_all,
    }
    results = {}
    for name, make in makers.items():
        tensors = make()
        results[name] = {"tensors": shown(graph_of(tensors)), "pending": shown(pending_graph())}
        del tensors
        torch_xla._XLAC._set_all_reduce_token(str(device.device()), None)
    results["executed"] = (metrics.counter_value("UncachedCompile") or 0) + (
        metrics.counter_value("CachedCompile") or 0
    )
    return results
