"""The closed forms of a rank whose base is frozen and has LoRA on all linears of its layers.

What is frozen costs 4 FLOPs an element and token, 2 forward and 2 for the activations' gradient; it is gathered, and
nothing of it is reduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tests.recipes.closed_forms import BF16, FP32, Add, Rank


@dataclass(frozen=True)
class AdaptedRank(Rank):
    """As Rank. A of a column and B of a row are whole on each tensor-parallel rank, the others are cut."""

    @property
    def rank(self) -> int:
        return self.config.adapter.rank

    def pairs(self) -> list[tuple[tuple[int, int], tuple[int, int], bool]]:
        """Shapes of A and B beside each of a layer's matrices, and whether that is cut by its rows (a column)."""
        row = (3, len(self.layer()) - 1)  # the output projection, and what ends the feed-forward
        shapes = enumerate(self.layer())
        return [((self.rank, inputs), (outputs, self.rank), index not in row) for index, (outputs, inputs) in shapes]

    def adapters(self) -> int:
        """Elements of a layer."""
        return sum(a[0] * a[1] + b[0] * b[1] for a, b, _ in self.pairs())

    def parameters(self) -> int:
        return super().parameters() + self.layers * self.adapters()

    def matmul_flops(self) -> int:
        return super().matmul_flops() * 4 // 6 + 6 * self.layers * self.adapters() * self.tokens * self.microbatches

    def recomputed_flops(self) -> int:
        """Full recompute repeats adapters too."""
        repeated = 2 * self.repeated * self.adapters() * self.tokens * self.microbatches
        return super().recomputed_flops() + repeated

    def _tensor(self, add: Add) -> None:
        """Nothing before the first layer is trained: no gradient leaves its attention, none enters the embedding."""
        super()._tensor(add)
        if self.first and self.config.parallel.sp:
            size = self.tokens * self.config.model.hidden * BF16
            for kind in ("reduce_scatter", "all_gather"):
                add("forward_backward", "tp", kind, -self.microbatches, size)

    def _summed_in_update(self, add: Add) -> None:
        """Each rank saw a part of what is not cut: its features' share of A, its positions' or features' of B."""
        shards = self._shards()
        parts = [ceil(a[0] / shards) * a[1] if column else ceil(b[0] / shards) * b[1] for a, b, column in self.pairs()]
        add("update", "tp", "all_reduce", 1, self.layers * sum(parts) * FP32)
        if self.heads[2] > 1:
            rows = ceil(self.heads[1] * self.head_size / shards)
            add("update", "tp", "all_reduce", self.heads[1], 2 * self.layers * rows * self.rank * FP32)

    def _data(self, add: Add) -> None:
        vectors = [*self.vectors(), *self.whole_vectors()]
        beside = sum(self._padded(rows) * width for a, b, _ in self.pairs() for rows, width in (a, b))
        layer = sum(self._padded(rows) * width for rows, width in self.layer()) + sum(map(self._padded, vectors))
        rest = sum(self._padded(rows) * width for rows, width in [*self.ends(), *self.positions()])
        rest += self.last * sum(map(self._padded, self.norm()))
        for count, elements in ((self.layers, layer + beside), (1 if rest else 0, rest)):
            add("forward_backward", "dp", "all_gather", count, elements * BF16)
        add("forward_backward", "dp", "reduce_scatter", self.layers, beside * FP32)
        add("update", "dp", "all_reduce", 2, FP32)
