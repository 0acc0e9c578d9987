"""What a rank of a full-size recipe computes and sends in a step, from papers' formulas and the recipe's numbers alone.

Written for what the recipes use: even cuts but for heads, a stage for each pipeline rank, ZeRO 0 or 1, no context
parallelism, recompute none, selective or full, in every k-th layer of the whole model; norms before the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from trainer.config.schema import Config

Traffic = dict[tuple[str, str, str], tuple[int, int]]
"""(phase, axis, kind) -> number of collectives, bytes of the largest buffer that the rank has in each."""

Add = Callable[[str, str, str, int, int], None]

BF16, FP32 = 2, 4


@dataclass(frozen=True)
class Rank:
    """A tensor-parallel rank of a pipeline stage. data: ranks that hold the same weights. microbatches: of a step.
    start: number of the stage's first layer.
    """

    config: Config
    layers: int
    first: bool
    last: bool
    data: int
    microbatches: int
    start: int = 0

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads and key-value heads of a rank, and ranks that hold each of the latter, which share its query
        heads: what they do not divide is padded.
        """
        model, tp = self.config.model, self.config.parallel.tp
        key_value, copies = max(1, model.kv_heads // tp), max(1, tp // model.kv_heads)
        assert key_value * tp == model.kv_heads * copies
        return key_value * ceil(model.heads // model.kv_heads / copies), key_value, copies

    @property
    def head_size(self) -> int:
        model = self.config.model
        return model.head_dim or model.hidden // model.heads

    @property
    def widths(self) -> tuple[int, int, int]:
        """Rows of a layer's query, key (or value) and first feed-forward matrix on this rank."""
        queries, key_values, _ = self.heads
        wide = self.config.model.mlp // self.config.parallel.tp
        return queries * self.head_size, key_values * self.head_size, wide

    def layer(self) -> list[tuple[int, int]]:
        """Shapes of a layer's matrices on this rank."""
        model, (query, key_value, wide) = self.config.model, self.widths
        attention = [(query, model.hidden), (key_value, model.hidden), (key_value, model.hidden), (model.hidden, query)]
        first = [(wide, model.hidden)] * (2 if model.activation == "swiglu" else 1)
        return [*attention, *first, (model.hidden, wide)]

    def vectors(self) -> list[int]:
        """Lengths of a layer's biases that are cut with their matrices."""
        model, (query, key_value, wide) = self.config.model, self.widths
        first = [wide] * (2 if model.activation == "swiglu" else 1)
        return [query, key_value, key_value] * model.qkv_bias + first * model.mlp_bias

    def whole_vectors(self) -> list[int]:
        """Lengths of what each tensor-parallel rank has of a layer in full: norms, and biases behind a sum."""
        model = self.config.model
        norms = self.norm() * (1 if model.block == "parallel_one_norm" else 2)
        of_heads = [self.head_size, self.head_size] if model.qk_norm == "head" else []
        return [*norms, *[model.hidden] * (model.o_bias + model.mlp_bias), *of_heads]

    def norm(self) -> list[int]:
        """Lengths of a norm's weight, and of a LayerNorm's bias."""
        return [self.config.model.hidden] * (2 if self.config.model.norm == "layer" else 1)

    def ends(self) -> list[tuple[int, int]]:
        """Shapes of embedding and head, where the rank has them; a tied head on the same rank is one with it."""
        model = self.config.model
        table = (model.vocab // self.config.parallel.tp, model.hidden)
        return [table] * (1 if model.tied and self.first else self.first + self.last)

    def positions(self) -> list[tuple[int, int]]:
        """Shape of the learned positions, which no rank cuts, where the rank has them."""
        model = self.config.model
        return [(model.max_positions, model.hidden)] * (self.first and model.position == "learned")

    @property
    def tokens(self) -> int:
        """Of a microbatch."""
        return self.config.train.microbatch * self.config.data.seq_len

    def parameters(self) -> int:
        """Elements on this rank before ZeRO."""
        layer = sum(a * b for a, b in self.layer()) + sum(self.vectors()) + sum(self.whole_vectors())
        ends = sum(a * b for a, b in [*self.ends(), *self.positions()]) + self.last * sum(self.norm())
        return self.layers * layer + ends

    def matmul_flops(self) -> int:
        """6 a matrix element and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1); the look-up is none."""
        model = self.config.model
        head = model.vocab // self.config.parallel.tp * model.hidden if self.last else 0
        elements = self.layers * sum(a * b for a, b in self.layer()) + head
        return 6 * elements * self.tokens * self.microbatches

    def attention_flops(self) -> int:
        """12 x heads x head size x positions a token (PaLM, arXiv:2204.02311, appendix B), over the full square."""
        a_token = 12 * self.heads[0] * self.head_size * self.config.data.seq_len
        return self.layers * a_token * self.tokens * self.microbatches

    def recomputed_flops(self) -> int:
        """The scores, once more, in the attention kernel's backward pass: one of its six products. Selective recompute
        repeats the output projection, which is a third of its 6 FLOPs an element and token; full recompute the whole
        forward pass up to the last matrix product, whose result nobody needs.
        """
        scores = self.attention_flops() // 6
        if self.config.parallel.recompute == "none":
            return scores
        repeated = self.config.model.hidden * self.heads[0] * self.head_size
        if self.config.parallel.recompute == "full":
            repeated = sum(a * b for a, b in self.layer()[:-1])
            scores += self.attention_flops() // 3 * self.repeated // self.layers
        return scores + 2 * repeated * self.repeated * self.tokens * self.microbatches

    @property
    def repeated(self) -> int:
        """Layers that are recomputed."""
        parallel = self.config.parallel
        if parallel.recompute == "none":
            return 0
        return sum(number % parallel.recompute_every == 0 for number in range(self.start, self.start + self.layers))

    def traffic(self) -> Traffic:
        """Every collective of a step."""
        found: Traffic = {}

        def add(phase: str, axis: str, kind: str, count: int, size: int) -> None:
            if count:
                before = found.get((phase, axis, kind), (0, 0))
                found[phase, axis, kind] = (before[0] + count, before[1] + count * size)

        if self.config.parallel.tp > 1:
            self._tensor(add)
        if self.config.parallel.pp > 1:
            self._pipeline(add)
        if self.data > 1:
            self._data(add)
        return found

    def _tensor(self, add: Add) -> None:
        """Two seams a block each way (Shoeybi et al. 2019, section 3); under sequence parallelism a sum becomes a
        gathering and a reduce-scatter of the same buffer (Korthikanti et al. 2022, section 4.2.2).
        """
        parallel, model, m = self.config.parallel, self.config.model, self.microbatches
        size = self.tokens * model.hidden * BF16
        phase = "forward_backward"
        if parallel.sp:
            seams = 4 * self.layers + self.first + self.last
            # Recomputation repeats the attention's sum; the feed-forward's is the layer's last, which nobody needs.
            add(phase, "tp", "reduce_scatter", m * (seams + self.repeated), size)
            # Every block gathers once more in the backward pass: it did not keep what it gathered (the same section),
            # or it runs again as a whole.
            add(phase, "tp", "all_gather", m * (seams + 2 * self.layers), size)
        else:
            add(phase, "tp", "all_reduce", m * (4 * self.layers + self.first + self.last), size)
        if self.last:  # the largest logit, then the sum of powers and the target's logit: three numbers a token
            chunks = ceil(self.tokens / model.loss_chunk_tokens)
            assert self.tokens % chunks == 0
            add(phase, "tp", "all_reduce", m * chunks, self.tokens // chunks * FP32)
            add(phase, "tp", "all_reduce", m * chunks, self.tokens // chunks * 2 * FP32)
        self._summed_in_update(add)
        add("update", "tp", "all_reduce", 1, FP32)  # the squared norm

    def _summed_in_update(self, add: Add) -> None:
        """What each rank has a part of the gradient of: of what all have in full, it saw its part of the sequence, or
        its heads; of copies of key-value heads (k and v of every layer, one collective for each head) its queries.
        """
        if self.config.parallel.sp:
            layer = sum(ceil(rows / self._shards()) for rows in self.whole_vectors())
            last = self.last * sum(ceil(rows / self._shards()) for rows in self.norm())
            positions = sum(ceil(rows / self._shards()) * width for rows, width in self.positions())
            add("update", "tp", "all_reduce", 1, (self.layers * layer + last + positions) * FP32)
        if self.heads[2] > 1:
            model = self.config.model
            rows, columns = ceil(self.heads[1] * self.head_size / self._shards()), model.hidden + model.qkv_bias
            add("update", "tp", "all_reduce", self.heads[1], 2 * self.layers * rows * columns * FP32)

    def _pipeline(self, add: Add) -> None:
        """Activations go forward and their gradients back."""
        parallel, m = self.config.parallel, self.microbatches
        parts = parallel.tp if parallel.sp else 1
        size = self.tokens * self.config.model.hidden * BF16 // parts
        for kind in ("send", "recv"):
            add("forward_backward", "pp", kind, m * ((not self.last) + (not self.first)), size)
        add("update", "pp", "all_reduce", 2, FP32)  # the loss, the squared norm
        if self.config.model.tied and (self.first or self.last):  # the two copies' gradients
            [(rows, width)] = self.ends()
            add("update", "pp", "all_reduce", 1, ceil(rows / self._shards()) * width * FP32)

    def _data(self, add: Add) -> None:
        """ZeRO 1 gathers weights and reduces gradients once a step, for each layer and for the rest together."""
        axis = "dp"
        if not self.config.parallel.zero:
            elements = ceil(self.parameters() / 16384) * 16384  # the flat gradient is padded to whole rows
            add("update", axis, "all_reduce", 1, elements * FP32)
            add("update", axis, "all_reduce", 1, FP32)  # the loss
            return
        vectors = [*self.vectors(), *self.whole_vectors()]
        layer = sum(self._padded(rows) * width for rows, width in self.layer()) + sum(map(self._padded, vectors))
        rest = sum(self._padded(rows) * width for rows, width in [*self.ends(), *self.positions()])
        rest += self.last * sum(map(self._padded, self.norm()))
        for count, elements in ((self.layers, layer), (1 if rest else 0, rest)):
            add("forward_backward", axis, "all_gather", count, elements * BF16)
            add("forward_backward", axis, "reduce_scatter", count, elements * FP32)
        add("update", axis, "all_reduce", 2, FP32)  # the loss, the squared norm

    def _shards(self) -> int:
        return self.data if self.config.parallel.zero else 1

    def _padded(self, rows: int) -> int:
        """Rows after padding to a multiple of the ranks."""
        return ceil(rows / self.data) * self.data
