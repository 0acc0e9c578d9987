"""The gradient of the lowered embedding on torch_xla's lazy tensors: closed forms, and what the graph adds up in."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.distributed as dist

from tests.neuron import alone

COUNT, VOCAB, HIDDEN, TOKEN = 1000, 16, 8, 3


def ones(dtype: str) -> dict[str, Any]:
    """One token a thousand times, and ones as the gradient of its rows. As the first of two tensor-parallel ranks."""
    import torch_xla.distributed.xla_backend  # registers the backend "xla"
    from neuronx_distributed.parallel_layers import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from trainer.backends.neuron.lowering.layers import Layers
    from trainer.backends.neuron.lowering.materialise import materialise

    alone.install()
    kind, device = getattr(torch, dtype), torch_xla.device()
    dist.init_process_group("xla", store=FakeStore(), rank=0, world_size=2)
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=2, skip_collective_init=True)
    found = {}
    for sequence in (False, True):
        layer = Layers(2, sequence, kind).embedding(VOCAB, HIDDEN)
        materialise([layer], device)
        rows = layer(torch.full((1, COUNT), TOKEN).to(device))
        rows.backward(torch.ones_like(rows))
        graph = torch_xla._XLAC._get_xla_tensors_hlo([layer.weight.grad])
        found["sequence" if sequence else "whole"] = {
            "row": layer.weight.grad[TOKEN].float().cpu().tolist(),
            "others": int(layer.weight.grad.cpu().count_nonzero()) - HIDDEN,
            "scatter": re.findall(r"= (\w+)\[.*? scatter\(", graph),
        }
    return found
