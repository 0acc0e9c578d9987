"""A process of the smoke test: gradients that are sums of ones, as JSON on the last line of its output.

python -m trainer.commands.smoke.ones cpu|neuron
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F

from trainer.commands.smoke.sums import COUNT
from trainer.lookup import lookup

WIDTH, ROWS = 128, 512


def gradients(device: torch.device) -> dict[str, float]:
    """By kind of parameter, in BF16: an element whose gradient is COUNT ones added up; the one that is furthest off."""

    def parameter(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.bfloat16, device=device).requires_grad_()

    x = torch.ones(1, COUNT, WIDTH, dtype=torch.bfloat16, device=device)
    tokens = torch.full((1, COUNT), 3).to(device)
    table, bias, norm, matrix = parameter(ROWS, WIDTH), parameter(WIDTH), parameter(WIDTH), parameter(WIDTH, WIDTH)
    results = {
        "embedding": (lookup(tokens, table), table),
        "norm": (F.rms_norm(x, (WIDTH,), norm, 1e-5), norm),
        "bias": (F.linear(x, matrix.detach(), bias), bias),
        "matrix": (F.linear(x, matrix), matrix),
    }
    for result, _ in results.values():
        result.backward(torch.ones_like(result))
    found = {kind: weight.grad for kind, (_, weight) in results.items() if weight.grad is not None}
    found["embedding"] = found["embedding"][3]
    return {kind: _furthest(gradient.float().cpu()) for kind, gradient in found.items()}


def _furthest(values: torch.Tensor) -> float:
    return float(values.flatten()[(values - COUNT).abs().argmax()])


def main(where: str) -> None:
    """Print what was found on a core of this machine, or on its CPU."""
    device = torch.device("cpu")
    if where == "neuron":
        from trainer.backends.neuron.device import device as neuron

        device = neuron()
    print(json.dumps(gradients(device)))


if __name__ == "__main__":
    main(sys.argv[1])
