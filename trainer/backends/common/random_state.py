"""The host's random state as text, for a checkpoint. Nothing in a step draws from it; samples do."""

from __future__ import annotations

import base64

import torch


def rng_state() -> str:
    """PyTorch's CPU generator."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def set_rng_state(state: str) -> None:
    """Inverse of rng_state."""
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
