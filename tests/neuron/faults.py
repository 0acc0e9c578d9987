"""The neuron lowering broken on purpose: each fault replaces a piece of it in a forked rank, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from neuronx_distributed.pipeline import NxDPPModel

from tests.distributed.faults.registry import after, nothing
from trainer.backends.common.share import Share
from trainer.backends.neuron.backend import NeuronBackend
from trainer.backends.neuron.lowering import layers
from trainer.backends.neuron.lowering import lower as lowering
from trainer.backends.neuron.lowering.pipeline import Pipeline
from trainer.backends.neuron.update import audit, zero1
from trainer.backends.neuron.update.reduction import Copies, Reduction
from trainer.backends.neuron.update.zero1 import Zero1

FAULTS: dict[str, Callable[[], None]] = {}


def fault(break_it: Callable[[], None]) -> Callable[[], None]:
    """Register a fault by its function's name."""
    FAULTS[break_it.__name__] = break_it
    return break_it


@fault
def columns_reduce_in_fp32_under_bf16() -> None:
    """NxD's default: the input's gradient stays the local one. The build-time audit would say so."""
    audit.audit_reduction = nothing
    original = layers.ColumnParallelLinear
    layers.ColumnParallelLinear = lambda *args, **options: original(  # type: ignore[assignment,misc]
        *args, **options | {"reduce_dtype": torch.float32}
    )


@fault
def copies_of_heads_not_added() -> None:
    Copies.add = nothing  # type: ignore[method-assign]


@fault
def copies_of_heads_all_counted_in_the_norm() -> None:
    _count(lambda reduction, name: len(reduction._locals[name].pieces) == 3)


@fault
def padding_gets_gradients() -> None:
    after(Reduction, "__init__", lambda self, *_: self._kept.clear())


@fault
def norms_not_summed_over_the_sequence() -> None:
    """The audit at a save would say so too."""
    audit.audit_copies = nothing
    after(Reduction, "__init__", lambda self, *_: self._partial.clear())


@fault
def norms_counted_by_every_rank() -> None:
    _count(lambda reduction, name: reduction._rules[name].dim is None)


@fault
def mean_of_zero_not_compensated() -> None:
    after(NeuronBackend, "_make_optimizer", lambda self, *_: setattr(self, "_data_ranks", 1))


@fault
def masters_not_rounded_into_the_model() -> None:
    Zero1.publish = nothing  # type: ignore[method-assign]


@fault
def norm_and_loss_of_one_rank() -> None:
    zero1.xm = SimpleNamespace(REDUCE_SUM="sum", all_reduce=lambda kind, tensors, **_: tensors)  # type: ignore[attr-defined]


@fault
def tied_head_counted_twice_in_the_norm() -> None:
    _count(lambda reduction, name: reduction._locals[name].copy)


@fault
def tied_gradients_not_added() -> None:
    NxDPPModel._reduce_shared_weights = nothing


@fault
def pipeline_weight_not_multiplied_by_microbatches() -> None:
    original = Pipeline.train
    Pipeline.train = lambda self, batches, weight, device: original(  # type: ignore[method-assign]
        self, batches, weight / self.microbatches, device
    )


@fault
def mask_of_the_first_share() -> None:
    """Every context-parallel rank masks as if its queries were the first rank's."""
    original = lowering._attend

    def attend(model: Any, options: Any) -> None:
        share, group = options.share
        original(model, replace(options, share=(Share(0, share.ranks), group)))

    lowering._attend = attend


@fault
def initialised_by_local_rows() -> None:
    """Every rank draws what rank 0 draws."""
    original = NeuronBackend.load_initial

    def load_initial(self: NeuronBackend, initialise: Any) -> None:
        original(self, lambda box: initialise(replace(box, offsets=(0,) * len(box.offsets))))

    NeuronBackend.load_initial = load_initial  # type: ignore[method-assign]


def _count(wrongly: Callable[[Reduction, str], bool]) -> None:
    """Count some parameters wholly in the norm, on every rank that has them."""
    original = Reduction.counted

    def counted(self: Reduction, *args: Any) -> Mapping[str, Any]:
        return {name: factor for name, factor in original(self, *args).items() if not wrongly(self, name)}

    Reduction.counted = counted  # type: ignore[method-assign,assignment]
