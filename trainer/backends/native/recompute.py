"""Activations made again in the backward pass instead of kept: less memory for more computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trainer.parallel.plan import Plan

aten = torch.ops.aten
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""Selective: the results that cost the most FLOPs to make again. Norms, rotations, activations and masks are cheap."""

_depth = 0


def recomputing() -> bool:
    """Whether the forward pass that runs is a recomputation: what it costs is not the model's own FLOPs."""
    return _depth > 0


@contextmanager
def _recomputation(inner: AbstractContextManager[Any]) -> Iterator[None]:
    global _depth
    _depth += 1
    try:
        with inner:
            yield
    finally:
        _depth -= 1


def lower(model: nn.Module, plan: Plan, mode: str, every: int) -> None:
    """Recompute in every ``every``-th layer, counted over the whole model, in place. mode: none | selective | full."""
    if mode == "none":
        return
    for number, layer in model.get_submodule(plan.layers).named_children():
        if int(number) % every == 0:
            # Not a wrapper module: parameters keep their names, and other hooks stay around it.
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts(mode)
            )


def _contexts(mode: str) -> Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]:
    def make() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        if mode == "full":
            return nullcontext(), _recomputation(nullcontext())
        keeping, again = create_selective_checkpoint_contexts(_policy)
        return keeping, _recomputation(again)

    return make


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
