"""A few words from the model, so that a person sees it learn."""

from __future__ import annotations

import torch

from trainer.backends.base import Backend


def sample_tokens(
    backend: Backend, prompt: list[int], count: int, length: int, temperature: float, seed: int, stop: int
) -> list[int]:
    """Continue ``prompt`` by up to ``count`` tokens, ending at ``stop``.

    Every rank runs it (a forward pass may be collective) and takes rank 0's tokens. The shape is
    always [1, length], so that an XLA backend compiles it once.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(count):
        logits = backend.next_token_logits(tokens, length)
        if temperature > 0:
            probabilities = torch.softmax(logits / temperature, dim=-1)
            token = int(torch.multinomial(probabilities, 1, generator=generator).item())
        else:
            token = int(logits.argmax().item())
        token = backend.host.broadcast(token)  # one rank that ends earlier would leave the others waiting
        if token == stop:
            break
        tokens.append(token)
    return tokens[len(prompt) :]
