"""Initial weights that do not depend on the layout: every rank draws just the blocks that it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from trainer.parallel.boxes import Box
from trainer.parallel.plan import Plan

BLOCK_ROWS = 256
"""Rows (indices of the first dim) drawn from one generator. Part of the definition of a seed: never change it."""

Draw = Callable[[tuple[int, ...], torch.Generator], torch.Tensor]
DRAWS: dict[str, Draw] = {
    "normal": lambda shape, generator: torch.randn(shape, generator=generator),
    "uniform": lambda shape, generator: torch.rand(shape, generator=generator) * 2 - 1,
}
"""By kind of trainer.parallel.plan.Init; what is drawn is multiplied by its std."""


class Initialiser:
    """Draws the initial values of any box of any parameter.

    A block of 256 rows is keyed by (seed, canonical name, block index), in the coordinates of the unpadded global
    tensor, so that one process and a thousand ranks start bitwise equal.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        """plan: says of each parameter what it begins with."""
        self.plan, self.seed = plan, seed

    def __call__(self, box: Box) -> torch.Tensor:
        """FP32 values of shape ``box.sizes``, as the plan's rule for the parameter says."""
        init = self.plan.rule(box.name).init
        if init.kind not in DRAWS:
            return torch.ones(box.sizes) if init.kind == "ones" else torch.zeros(box.sizes)
        first, last = box.offsets[0], box.offsets[0] + box.sizes[0]
        rest = tuple(slice(o, o + n) for o, n in zip(box.offsets[1:], box.sizes[1:], strict=True))
        out = torch.empty(box.sizes)
        for block in range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS)):
            start = block * BLOCK_ROWS
            rows = self._block(
                box.name, block, (min(BLOCK_ROWS, box.shape[0] - start), *box.shape[1:]), DRAWS[init.kind]
            )
            low, high = max(first, start), min(last, start + rows.shape[0])
            wanted = (slice(low - start, high - start), *rest)
            out[low - first : high - first] = rows[wanted] * init.std
        return out

    def _block(self, name: str, block: int, shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
        key = hashlib.blake2b(f"{self.seed}|{name}|{block}".encode(), digest_size=8).digest()
        # 63 bits: a generator's seed is a signed integer.
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
        return draw(shape, generator)
