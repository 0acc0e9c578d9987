"""What attention without a kernel takes on trn1 for its scores: of one block, or heads x seq^2, layer by layer.

Samples of more than one block (trainer/trainium/blocks.py) have a block's at a time. Others have all: plain_attend of
trainer/backends/neuron/lowering/attention.py has scores in the model's dtype, FP32 from there to the softmax, and the
softmax's shares in the model's dtype again. The rehearsal measures the native lowering, whose kernel keeps none of
them. How many bytes a score costs is the compiler's choice, so it is a range, never measured on a device. Of plain
attention:

at least    the scores as the first product gives them: from them all is made again without a product
at most     what autograd keeps (FP32 shares, their copy in the model's dtype, each layer's mask), and what one layer's
            backward pass holds besides
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config.groups.parallel import ParallelConfig
from trainer.parallel.heads import Heads, lay_out
from trainer.parallel.mesh import Mesh
from trainer.trainium.blocks import BLOCK, is_blockwise

GIB = 2**30
KEPT = {"bf16_mixed": (2, 6), "bf16": (2, 6), "fp32": (4, 4)}
"""Bytes of a score that a layer keeps, at least and at most, by precision mode."""
WORKING = {"bf16_mixed": (2, 6), "bf16": (2, 6), "fp32": (4, 8)}
"""Of one layer besides, while its backward pass runs: at least the gradient of the scores."""
MASK = 1
"""Of a pair of positions, at most: heads share a mask, and the compiler may let layers share it too."""
STRIP = {"bf16_mixed": (2, 20), "bf16": (2, 20), "fp32": (4, 22)}
"""Bytes of a score of a block: at least its gradient; at most four FP32 tensors, one in the model's dtype, a mask."""
SUMS = 32
"""Bytes, at most, of an element of keys: of FP32 sums over blocks, two before and after one, and of what is added."""


@dataclass(frozen=True)
class Scores:
    """heads: of a rank, padding included. queries, keys: positions of a sample. samples: of a microbatch. layers: that
    keep their scores at the same time, counted once for each microbatch in flight. why: attention is plain.
    """

    heads: int
    queries: int
    keys: int
    samples: int
    layers: int
    precision: str
    why: str

    @property
    def least(self) -> int:
        """Bytes, if the compiler makes again whatever needs no product."""
        return self._bytes(0)

    @property
    def most(self) -> int:
        """Bytes, if it keeps what autograd keeps."""
        return self._bytes(1) + self.samples * self.queries * self.keys * self.layers * MASK

    def _bytes(self, end: int) -> int:
        of_a_score = KEPT[self.precision][end] * self.layers + WORKING[self.precision][end]
        return self.samples * self.heads * self.queries * self.keys * of_a_score

    def __str__(self) -> str:
        kept, working = (_span(table[self.precision]) for table in (KEPT, WORKING))
        return (
            f"scores of plain attention on trn1 (estimated): {self.least / GIB:.2f} to {self.most / GIB:.2f} GiB ="
            f" {self.samples} samples x {self.heads} heads x {self.queries:,} x {self.keys:,} x"
            f" ({kept} kept x {self.layers} layers + {working} of one) bytes,"
            f" at most with a mask of {MASK} byte in each layer ({self.why})"
        )


def _span(ends: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(map(str, ends)))


@dataclass(frozen=True)
class Strips:
    """Attention block by block has the scores of one block at a time, in the backward pass a block of queries with its
    keys. What a layer keeps besides what the rehearsed kernel keeps too, log-sum-exps among it, is nothing.

    heads, key_value_heads: of a rank, padding included. queries, keys: positions of a sample. why: there is no kernel.
    """

    heads: int
    key_value_heads: int
    head_dim: int
    queries: int
    keys: int
    samples: int
    precision: str
    why: str

    @property
    def least(self) -> int:
        """Bytes, if the compiler writes of a block nothing but the gradient of its scores."""
        return self._scores * STRIP[self.precision][0]

    @property
    def most(self) -> int:
        """Bytes, if it keeps what PyTorch does, operator by operator."""
        return self._scores * STRIP[self.precision][1] + self._sums * SUMS

    @property
    def _scores(self) -> int:
        return self.samples * self.heads * min(BLOCK, self.queries) * self.keys

    @property
    def _sums(self) -> int:
        return self.samples * self.key_value_heads * self.keys * self.head_dim

    def __str__(self) -> str:
        log_sums = 4 * self.samples * self.heads * self.queries
        return (
            f"scores of blockwise attention on trn1 (estimated): {self.least / GIB:.2f} to {self.most / GIB:.2f} GiB ="
            f" {self.samples} samples x ({self.heads} heads x {min(BLOCK, self.queries):,} x {self.keys:,} x"
            f" {_span(STRIP[self.precision])} + {self.key_value_heads} heads x {self.keys:,} x {self.head_dim} x"
            f" 0 to {SUMS}) bytes, of one block in one layer; log-sum-exps, {log_sums:,} bytes a layer, are in the"
            f" activations ({self.why})"
        )


def scores_of_rank(
    why: str,
    heads: Heads,
    precision: str,
    parallel: ParallelConfig,
    samples: int,
    seq_len: int,
    microbatches: int,
    stages: Sequence[range],
    mesh: Mesh,
) -> Scores | Strips:
    """why: there is no kernel. stages: layers of every stage, first to last; one without a pipeline."""
    layout, queries = lay_out(heads, mesh.tp), seq_len // mesh.cp
    if is_blockwise(seq_len):
        slots = layout.slots_per_rank
        return Strips(layout.queries_per_rank, slots, heads.size, queries, seq_len, samples, precision, why)
    chunks = stages[mesh.coordinate("pp") :: mesh.pp]
    kept = max(sum(not _made_again(parallel, number) for number in chunk) for chunk in chunks)
    again = any(_made_again(parallel, number) for chunk in chunks for number in chunk)
    layers = in_flight(mesh, len(chunks), microbatches) * kept + again
    return Scores(layout.queries_per_rank, queries, seq_len, samples, layers, precision, why)


def _made_again(parallel: ParallelConfig, layer: int) -> bool:
    """A recomputed layer has its scores only while its own backward pass runs."""
    return parallel.recompute == "full" and layer % parallel.recompute_every == 0


def in_flight(mesh: Mesh, chunks: int, microbatches: int) -> int:
    """Forward passes of a chunk of layers whose backward pass is still to come, at most, on this rank.

    1F1B runs ahead by as many as there are stages behind it (Narayanan et al. 2019, PipeDream); interleaved, by
    2 x those + (chunks - 1) x stages (Narayanan et al. 2021, arXiv:2104.04473, section 2.2).
    """
    behind = mesh.pp - 1 - mesh.coordinate("pp")
    ahead = behind if chunks == 1 else 2 * behind + (chunks - 1) * mesh.pp
    return min(ahead + 1, microbatches * chunks)
