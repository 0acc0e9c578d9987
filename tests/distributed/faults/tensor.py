"""Tensor and sequence parallelism broken, and what is compared besides the curve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from tests.distributed.faults.registry import after, fault, nothing, same
from trainer.backends.common.share import Share
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.lowering import lower as lowering
from trainer.backends.native.lowering import tensor_parallel
from trainer.backends.native.lowering.collectives import all_gather
from trainer.backends.native.lowering.vocabulary import VocabularyEmbedding
from trainer.backends.native.update import reduction
from trainer.backends.native.update.reduction import Reduction


@fault
def block_left_without_sum() -> None:
    tensor_parallel.leave = same


@fault
def block_entered_without_gradient_sum() -> None:
    tensor_parallel.enter = same


@fault
def key_value_copies_not_added() -> None:
    reduction.add_copies = nothing


@fault
def padding_gets_gradients() -> None:
    Reduction._clear_padding = nothing  # type: ignore[method-assign]


@fault
def clipped_by_the_local_norm() -> None:
    Reduction.norm = lambda self, optimizer: optimizer.squared_norm().sqrt()  # type: ignore[method-assign]


@fault
def shared_norms_counted_by_every_rank() -> None:
    """The global norm adds the norms' gradients once for each rank that holds them."""
    original = lowering._lower_stage

    def lower_stage(*args: Any) -> Any:
        stage = original(*args)
        counted = {
            name: replace(placement, boxes=tuple(replace(box, copy=0) for box in placement.boxes))
            for name, placement in stage.placements.items()
        }
        return replace(stage, placements=counted)

    lowering._lower_stage = lower_stage


@fault
def norms_not_summed_over_the_sequence() -> None:
    after(Reduction, "__init__", lambda self, *_, **__: self._partial.clear())


@fault
def norms_of_heads_not_summed() -> None:
    """Without sequence parallelism too: each rank's QK norm saw its own heads only."""
    after(Reduction, "__init__", lambda self, *_, **__: self._partial.clear())


@fault
def gathered_sequence_keeps_own_gradient() -> None:
    """The backward pass of the gather cuts out this rank's part where it should sum the ranks' parts."""

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
            ctx.dim, ctx.group = dim, group
            return all_gather(x, dim, group)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
            parts = gradients[0].chunk(dist.get_world_size(ctx.group), ctx.dim)
            return parts[dist.get_rank(ctx.group)].contiguous(), None, None

    tensor_parallel.gather = Gather.apply


@fault
def initialised_by_local_rows() -> None:
    """Every rank draws what rank 0 draws."""
    original = NativeBackend.load_initial

    def load_initial(self: NativeBackend, initialise: Any) -> None:
        original(self, lambda box: initialise(replace(box, offsets=(0,) * len(box.offsets))))

    NativeBackend.load_initial = load_initial  # type: ignore[method-assign]


@fault
def embedding_rows_shifted_in_evaluation() -> None:
    """Wrong without gradients only: training stays right."""
    original = VocabularyEmbedding.forward

    def forward(self: VocabularyEmbedding, tokens: torch.Tensor) -> torch.Tensor:
        return original(self, tokens if torch.is_grad_enabled() else (tokens - 1).clamp(min=0))

    VocabularyEmbedding.forward = forward  # type: ignore[method-assign]


@fault
def draws_of_another_part() -> None:
    """Every rank drops what the first part of the sequence drops."""
    original = Share.of
    Share.of = lambda self, batch: original(replace(self, part=0), batch)  # type: ignore[method-assign]


@fault
def row_bias_added_by_every_rank() -> None:
    tensor_parallel._bias_last = nothing  # type: ignore[assignment]
