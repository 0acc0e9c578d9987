"""The collectives of a rank's step under neuronx-distributed, from the layout and papers' descriptions alone.

For what the full-size recipes use, and context parallelism: ZeRO-1, sequence parallelism wherever there is tensor
parallelism, whole layers recomputed or none, norms before the blocks, one stage for each pipeline rank, all of equal
length.
Each collective is a line: kind, axis, ranks, dtype, bytes that the rank hands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.recipes.closed_forms import Rank
from trainer.config.schema import Config

BF16, FP32 = 2, 4
CAP = 130 * 2**20
"""NxD's bucket of ZeRO-1's reduce-scatter (nxd.md, section 3.5); its all-gather's is that over the data ranks."""


@dataclass(frozen=True)
class Stage:
    """A rank of a pipeline stage. data: ranks that hold the same weights. layers: of the stage."""

    config: Config
    layers: int
    index: int
    data: int
    microbatches: int

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def last(self) -> bool:
        return self.index == self.config.parallel.pp - 1

    @property
    def tp(self) -> int:
        return self.config.parallel.tp

    @property
    def tokens(self) -> int:
        return self.config.train.microbatch * self.config.data.seq_len // self.config.parallel.cp

    def step(self) -> list[str]:
        """All of them, in order."""
        return [*self._microbatches(), *self._update()]

    # --- forward and backward

    def _microbatches(self) -> Iterator[str]:
        """One forward, one backward (Narayanan et al. 2019, arXiv:1806.03377): as many forwards ahead as stages follow.

        A stage takes the next gradient before it hands on what it has just computed: two neighbours that both send
        first would wait for each other.
        """
        ahead = min(self.config.parallel.pp - self.index - 1, self.microbatches)
        for _ in range(ahead):
            yield from [*self._from_previous(), *self._forward(), *self._to_next()]
        for _ in range(self.microbatches - ahead):
            yield from [*self._from_previous(), *self._forward()]
            yield from [*self._from_next(), *self._to_next(), *self._backward(), *self._to_previous()]
        for _ in range(ahead):
            yield from [*self._from_next(), *self._backward(), *self._to_previous()]

    def _neighbour(self) -> str:
        """On the device a message is an all-gather of two ranks (nxd.md, section 3.6)."""
        parts = self.tp if self.config.parallel.sp else 1
        return self._line("all-gather", "pp", 2, "bf16", self.tokens // parts * self.config.model.hidden * BF16)

    def _from_previous(self) -> list[str]:
        return [] if self.first else [self._neighbour()]

    _to_previous = _from_previous

    def _to_next(self) -> list[str]:
        return [] if self.last else [self._neighbour()]

    _from_next = _to_next

    def _gather(self) -> str:
        size = self.tokens // self.tp * self.config.model.hidden * BF16
        return self._line("all-gather", "tp", self.tp, "bf16", size)

    def _scatter(self) -> str:
        return self._line("reduce-scatter", "tp", self.tp, "bf16", self.tokens * self.config.model.hidden * BF16)

    def _context(self, kind: str, parts: int) -> list[str]:
        """Keys and values, or their gradients, of some context-parallel ranks' positions, in one message."""
        cp, (_, key_value, _) = self.config.parallel.cp, self._rank.widths
        size = parts * self.tokens * 2 * key_value * BF16
        return [self._line(kind, "cp", cp, "bf16", size)] if cp > 1 else []

    def _forward(self) -> Iterator[str]:
        """Korthikanti et al. 2022 (arXiv:2205.05198), section 4.2.2: a gathering before each block, a reduce-scatter
        after it. The embedding's partial rows are reduced and scattered; the head gathers.
        """
        if self.tp > 1:
            yield from [self._scatter()] * self.first
        yield from self._layer_forward() * self.layers
        if self.tp > 1:
            yield from [self._gather()] * self.last
        if self.last:  # largest logit, target's logit, sum of exponentials (Shoeybi et al. 2019, section 3)
            yield from [self._line("all-reduce", "tp", self.tp, "f32", self.tokens * FP32)] * 3

    def _layer_forward(self) -> list[str]:
        """Attention, which meets the keys and values of all positions, then the feed-forward block."""
        before, after = ([self._gather()], [self._scatter()]) if self.tp > 1 else ([], [])
        return [*before, *self._context("all-gather", 1), *after, *before, *after]

    def _layer_backward(self) -> list[str]:
        """A gathering for the output's gradient, one for the block's input, a reduce-scatter of the input's gradient;
        in attention, the gradients of keys and values go back before the last two.
        """
        output, rest = ([self._gather()], [self._gather(), self._scatter()]) if self.tp > 1 else ([], [])
        context = self._context("reduce-scatter", self.config.parallel.cp)
        return [*output, *rest, *output, *context, *rest]

    def _backward(self) -> Iterator[str]:
        """The reverse; a block gathers its input once more, since it did not keep it (the same section). A layer that
        is recomputed runs its forward pass again before (Chen et al. 2016, arXiv:1604.06174).
        """
        if self.tp > 1:
            yield from [self._gather(), self._scatter()] * self.last
        for layer in reversed(range(self.index * self.layers, (self.index + 1) * self.layers)):
            if self.config.parallel.recompute == "full" and layer % self.config.parallel.recompute_every == 0:
                yield from self._layer_forward()
            yield from self._layer_backward()
        if self.tp > 1:
            yield from [self._gather()] * self.first

    # --- update

    @property
    def _rank(self) -> Rank:
        return Rank(self.config, self.layers, self.first, self.last, self.data, self.microbatches)

    def _matrices(self) -> list[tuple[int, int]]:
        """Shapes of what decays on this rank: embedding, learned positions; of each layer output projection, fused
        query-key-value, down, fused gate and up (without a gate: up, down); head.
        """
        model, rank = self.config.model, self._rank
        query, key_value, wide = rank.widths
        layer = [(model.hidden, query), (query + 2 * key_value, model.hidden)]
        if model.activation == "swiglu":
            layer += [(model.hidden, wide), (2 * wide, model.hidden)]
        else:
            layer += [(wide, model.hidden), (model.hidden, wide)]
        table = (model.vocab // self.tp, model.hidden)
        head = [table] * (self.last and not (model.tied and self.first))
        return [*[table] * self.first, *rank.positions(), *layer * self.layers, *head]

    def _vectors(self) -> list[tuple[int, bool]]:
        """Lengths of what does not decay on this rank, biases and norms, and whether its gradient is a part of a sum
        over the tensor-parallel ranks.
        """
        model, rank = self.config.model, self._rank
        query, key_value, wide = rank.widths
        attention = [(model.hidden, True)] * model.o_bias
        attention += [(rank.head_size, True)] * (2 if model.qk_norm == "head" else 0)
        attention += [(query + 2 * key_value, False)] * model.qkv_bias
        feed_forward = [(wide, False), (model.hidden, True)] * model.mlp_bias
        norm = [(size, True) for size in rank.norm()]
        norms = norm * (1 if model.block == "parallel_one_norm" else 2)
        return [*[*attention, *feed_forward, *norms] * self.layers, *norm * self.last]

    def _update(self) -> Iterator[str]:
        model, rank = self.config.model, self._rank
        _, heads, copies = rank.heads
        if model.tied and self.config.parallel.pp > 1 and (self.first or self.last):  # the table at both ends
            yield self._line("all-reduce", "pp", 2, "f32", model.vocab // self.tp * model.hidden * FP32)
        if copies > 1:  # keys and values whose heads several ranks hold
            of_a_head = [heads * rank.head_size * width * FP32 for width in (model.hidden, 1)[: 1 + model.qkv_bias]]
            for size in _joined([size for size in of_a_head for _ in "kv"] * self.layers):
                axis = "tp" if copies == self.tp else f"tp/{self.tp // copies}"  # multi-query: every rank has the head
                yield self._line("all-reduce", axis, copies, "f32", size)
        if self.tp > 1:
            parts = [rows * width for rows, width in rank.positions()]
            parts += [size for size, partial in self._vectors() if partial]
            for size in _joined([elements * FP32 for elements in parts]):
                yield self._line("all-reduce", "tp", self.tp, "f32", size)
        shapes = [*self._matrices(), *[(size, 1) for size, _ in self._vectors()]]
        padded = [-(-rows // self.data) * self.data * width for rows, width in shapes]
        for size in _buckets([elements * FP32 for elements in padded], CAP):
            yield self._line("reduce-scatter", "data", self.data, "f32", size)
        yield self._line("all-reduce", "world", self.config.parallel.pp * self.tp * self.data, "f32", 2 * FP32)
        megabytes = max(1, 130 // self.data)
        for size in _buckets([elements // self.data * BF16 for elements in padded], megabytes * 2**20):
            yield self._line("all-gather", "data", self.data, "bf16", size)

    def _line(self, kind: str, axis: str, ranks: int, dtype: str, size: int) -> str:
        return f"{kind} {axis} {ranks} {dtype} {size}"


def _joined(sizes: list[int]) -> Iterator[int]:
    """Sums of neighbours that do not exceed the cap."""
    total = 0
    for size in sizes:
        if total and total + size > CAP:
            yield total
            total = 0
        total += size
    if total:
        yield total


def _buckets(sizes: list[int], cap: int) -> Iterator[int]:
    """torch_xla fills a bucket up to the cap; what is larger than the cap by itself joins one that is not half full, if
    both together are at most twice the cap (torch_xla 2.9, the comments in CoalescingBuckets).
    """
    total = 0
    for size in sizes:
        if size > cap and total < cap / 2 and total + size <= 2 * cap:
            yield total + size
            total = 0
        else:
            if total and total + size > cap:
                yield total
                total = 0
            total += size
    if total:
        yield total
