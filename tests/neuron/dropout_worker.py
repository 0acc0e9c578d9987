"""Dropout's masks on XLA's lazy tensors beside the host's."""

from __future__ import annotations

import torch
import torch_xla

from trainer.data.draws import draw_keys
from trainer.models.dropout import Dropout, mixed


def compared() -> dict[str, bool]:
    """Whether hashes, and the results of dropout in each dtype, are those of the CPU to the bit."""
    where = torch_xla.device()
    edges = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 65535, -65536], dtype=torch.int32)
    values = torch.cat([edges, torch.randint(-(2**31), 2**31, (100_000,)).to(torch.int32)])
    found = {"hashes": torch.equal(mixed(values.to(where)).cpu(), mixed(values))}
    keys = torch.from_numpy(draw_keys(1, 5, 512)).reshape(2, 256)
    keys[0, :5] = -1
    dropout, x = Dropout(0.1, 192), torch.randn(2, 256, 192)
    dropout.place = "model.layers.3.mlp_dropout"
    for dtype in (torch.float32, torch.bfloat16):
        on_host = dropout(x.to(dtype), keys)
        found[str(dtype)] = torch.equal(dropout(x.to(dtype).to(where), keys.to(where)).cpu(), on_host)
    return found
