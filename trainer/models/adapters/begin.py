"""What a model with adapters begins with: the base's own weights, and adapters that change nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from trainer.models.initialise import Initialiser
from trainer.parallel.boxes import Box
from trainer.parallel.plan import Plan

Read = Callable[[Box], torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
"""Of the model's parameters, by canonical name."""
ROWS = 4096
"""Of an embedding that are in memory at a time while its columns are measured."""


@dataclass(frozen=True)
class Beginning:
    """Values of any box: ``base`` for the model's own parameters, ``drawn`` for adapters', lengths of the base's.

    Raises what they raise.
    """

    base: Read
    drawn: Initialiser
    plan: Plan
    shapes: Shapes

    @classmethod
    def of(cls, base: Read, plan: Plan, seed: int, shapes: Shapes) -> Beginning:
        """Adapters are drawn by the seed, each by its name, whatever layout asks."""
        return cls(base, Initialiser(plan, seed), plan, shapes)

    def __call__(self, box: Box) -> torch.Tensor:
        """Of shape ``box.sizes``, only to be read."""
        if not self.plan.adapts(box.name):
            return self.base(box)
        if self.plan.rule(box.name).init.kind != "lengths":
            return self.drawn(box)
        path = box.name.rpartition(".")[0]
        columns, weight = f"{path}.lora_embedding_A" in self.shapes, f"{path}.weight"
        if weight not in self.shapes:  # a tied head's is the embedding's
            weight = f"{self.plan.embedding}.weight"
        return (self._columns if columns else self._rows)(weight, box)

    def _rows(self, weight: str, box: Box) -> torch.Tensor:
        """|W|, row by row."""
        shape = self.shapes[weight]
        rows = Box(weight, shape, (box.offsets[0], 0), (box.sizes[0], shape[1]), ())
        return self.base(rows).float().square().sum(dim=1).sqrt()

    def _columns(self, weight: str, box: Box) -> torch.Tensor:
        """|W|, column by column. Block after block, whatever the layout: every one begins bitwise equal."""
        shape, total = self.shapes[weight], torch.zeros(box.sizes[0])
        for first in range(0, shape[0], ROWS):
            count = min(ROWS, shape[0] - first)
            block = Box(weight, shape, (first, box.offsets[0]), (count, box.sizes[0]), ())
            total += self.base(block).float().square().sum(dim=0)
        return total.sqrt()
