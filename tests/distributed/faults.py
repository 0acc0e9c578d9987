"""Lowerings broken on purpose: each fault replaces a piece of the native backend in a forked rank, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.backends.native import context_parallel, lowering, reduction, tensor_parallel
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.collectives import all_gather
from trainer.backends.native.context_parallel import Share
from trainer.backends.native.fully_sharded import FullySharded
from trainer.backends.native.optimizer import Optimizer
from trainer.backends.native.reduction import Reduction
from trainer.backends.native.vocabulary import VocabularyEmbedding
from trainer.batch import IGNORED_LABEL, Batch
from trainer.derive import Derived
from trainer.models.decoder import CausalLM

Fault = Callable[[Derived], Derived]
FAULTS: dict[str, Fault] = {}


def fault(break_it: Callable[[], None]) -> Callable[[], None]:
    """Register a fault that patches code."""

    def inject_it(derived: Derived) -> Derived:
        break_it()
        return derived

    FAULTS[break_it.__name__] = inject_it
    return break_it


def cut_fault(change: Callable[[Sequence[range]], tuple[range, ...]]) -> Callable[[Sequence[range]], tuple[range, ...]]:
    """Register a fault in the stages' layers."""
    FAULTS[change.__name__] = lambda derived: replace(derived, stages=change(derived.stages))
    return change


def inject(name: str, derived: Derived) -> Derived:
    """Break this process's lowering; nothing for an empty name."""
    return FAULTS[name](derived) if name else derived


def after(owner: type, method: str, more: Callable[..., None]) -> None:
    """Do ``more`` with the same arguments after a method."""
    original = getattr(owner, method)

    def both(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        more(self, *args, **options)
        return result

    setattr(owner, method, both)


def nothing(*args: Any, **options: Any) -> None:
    """In place of a piece that is left out."""


def same(x: Any, *args: Any) -> Any:
    """In place of a piece that should have changed its argument."""
    return x


# Tensor parallelism.


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


# Sequence parallelism.


@fault
def norms_not_summed_over_the_sequence() -> None:
    after(Reduction, "__init__", lambda self, *_, **__: self._norms.clear())


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


# Context parallelism.


@fault
def key_value_gradients_counted_twice_over_cp() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return 2 * gradients[0]

    original = context_parallel.gather
    context_parallel.gather = lambda x, dim, group: original(Twice.apply(x), dim, group)


@fault
def gradients_summed_twice_over_cp() -> None:
    def again(self: Any, optimizer: Optimizer) -> None:
        dist.all_reduce(optimizer.gradients, group=self._groups["cp"])

    after(Reduction, "__call__", again)


@fault
def document_mask_lost_under_cp() -> None:
    original = Share.mask
    Share.mask = lambda self, ids: original(self, torch.zeros_like(ids))  # type: ignore[method-assign]


@fault
def gathered_keys_taken_for_ordered() -> None:
    Share.gathered = lambda self, seq: torch.arange(seq)  # type: ignore[method-assign]


@fault
def positions_counted_from_the_share() -> None:
    original = Share.of

    def of(self: Share, batch: Batch) -> Batch:
        share = original(self, batch)
        own = torch.arange(share.tokens.shape[1]).expand_as(share.tokens)
        return share._replace(positions=torch.minimum(share.positions, own))

    Share.of = of  # type: ignore[method-assign]


# Data parallelism, accumulation, ZeRO.


@fault
def loss_averaged_per_microbatch() -> None:
    """A mean of the microbatches' means: the same number on average, and wrong where documents are uneven."""
    original = NativeBackend.forward_backward

    def forward_backward(self: NativeBackend, microbatches: Sequence[Batch], scale: float) -> None:
        total = torch.zeros(())
        for batch in microbatches:
            targets = max(1, int((batch.labels != IGNORED_LABEL).sum()))
            original(self, [batch], 1.0 / (targets * len(microbatches) * self.mesh.dp))
            total += self._loss
        self._loss.copy_(total)

    NativeBackend.forward_backward = forward_backward  # type: ignore[method-assign]


@fault
def last_microbatch_only() -> None:
    """Gradients of the others are overwritten; the loss is whole."""
    original = NativeBackend.forward_backward

    def forward_backward(self: NativeBackend, microbatches: Sequence[Batch], scale: float) -> None:
        original(self, microbatches, scale)
        whole = self._loss.clone()
        self._optimizer.gradients.zero_()
        original(self, microbatches[-1:], scale)
        self._loss.copy_(whole)

    NativeBackend.forward_backward = forward_backward  # type: ignore[method-assign]


@fault
def zero_gradients_averaged() -> None:
    def average(self: Any, model: nn.Module, plan: Any, stage: int, group: dist.ProcessGroup, precision: str) -> None:
        for module in self._modules():
            module.set_gradient_divide_factor(float(dist.get_world_size(group)))

    after(FullySharded, "__init__", average)


@fault
def zero_computes_with_stale_weights() -> None:
    FullySharded.forget_gathered = nothing  # type: ignore[method-assign]


@fault
def zero_norm_of_one_shard() -> None:
    original = Reduction.norm

    def norm(self: Reduction, optimizer: Optimizer) -> torch.Tensor:
        self._sharded = False
        return original(self, optimizer)

    Reduction.norm = norm  # type: ignore[method-assign]


# Pipelines.


@cut_fault
def a_layer_on_two_stages(stages: Sequence[range]) -> tuple[range, ...]:
    first, second, *rest = stages
    return (first, range(second.start - 1, second.stop), *rest)


@cut_fault
def a_layer_on_no_stage(stages: Sequence[range]) -> tuple[range, ...]:
    first, *rest = stages
    return (range(first.start, first.stop - 1), *rest)


@cut_fault
def stages_in_the_wrong_order(stages: Sequence[range]) -> tuple[range, ...]:
    """As if a rank held neighbours, where the schedule sends from rank to rank."""
    first, second, third, last = stages
    return (first, third, second, last)


@fault
def layers_of_a_stage_in_the_wrong_order() -> None:
    def reverse(self: CausalLM, layers: range) -> None:
        self.model.layers = nn.ModuleDict(dict(reversed(list(self.model.layers.items()))))

    after(CausalLM, "keep_stage", reverse)


@fault
def tied_gradients_not_added() -> None:
    def forget(self: Any, *args: Any, **options: Any) -> None:
        self._ends = None

    after(Reduction, "__init__", forget)


@fault
def tied_weight_counted_at_both_ends() -> None:
    lowering._as_copy = same


@fault
def norm_of_one_stage() -> None:
    original = Reduction.norm

    def norm(self: Reduction, optimizer: Optimizer) -> torch.Tensor:
        kept, self._groups = self._groups, {axis: group for axis, group in self._groups.items() if axis != "pp"}
        try:
            return original(self, optimizer)
        finally:
            self._groups = kept

    Reduction.norm = norm  # type: ignore[method-assign]


@fault
def loss_known_to_the_last_stage_only() -> None:
    Reduction.loss = nothing  # type: ignore[method-assign]


# What is compared besides the curve.


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
