"""The host's random state as text, for a checkpoint. Nothing in a step draws from it; samples do."""

from __future__ import annotations

import base64

import torch

from trainer.errors import CheckpointError, Problem


def rng_state() -> str:
    """PyTorch's CPU generator."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def set_rng_state(state: str) -> None:
    """Inverse of rng_state. Raises CheckpointError for text that no generator of this version gave."""
    try:
        torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
    except (ValueError, RuntimeError) as error:
        rule = f"holds the state of PyTorch's generator in rng ({str(error).splitlines()[0]})"
        remedy = "move this checkpoint away: the same command then goes on from the one before it"
        raise CheckpointError(Problem("state.json", f"{len(state)} characters", rule, remedy)) from error
