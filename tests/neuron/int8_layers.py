"""NxD's own quantiser in a rank, for test_int8.py."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file


def quantise() -> None:
    """matrices.safetensors -> theirs.safetensors: what NxD keeps of a linear layer with each as its weight."""
    from neuronx_distributed.quantization.quantization_utils import (
        convert_qint8_to_int8_state_dict,
        quantize_pytorch_model_per_channel_symmetric,
    )

    made: dict[str, torch.Tensor] = {}
    for name, matrix in load_file("matrices.safetensors").items():
        layer = torch.nn.Sequential(torch.nn.Linear(matrix.shape[1], matrix.shape[0]))
        layer[0].weight.data.copy_(matrix)
        state = quantize_pytorch_model_per_channel_symmetric(layer, dtype=torch.int8).state_dict()
        convert_qint8_to_int8_state_dict(state)
        made[f"{name}.weight"], made[f"{name}.scale"] = state["0.weight"].clone(), state["0.scale"].clone()
    save_file(made, "theirs.safetensors")
