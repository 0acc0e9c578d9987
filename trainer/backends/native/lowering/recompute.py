"""Activations made again in the backward pass instead of kept: less memory for more computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trainer.parallel.plan import Plan

aten = torch.ops.aten
KEPT = frozenset({aten.mm.default, aten.addmm.default, aten.bmm.default})
"""Selective: the results that cost the most FLOPs to make again, besides attention's. Norms, rotations, activations and
masks are cheap.
"""

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
"""What torch's checkpoint surrounds a forward pass and its repetition with."""

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


def covers(plan: Plan, mode: str, every: int, path: str) -> bool:
    """Whether the layer to which the module at a path belongs is recomputed."""
    number = path.removeprefix(f"{plan.layers}.").partition(".")[0]
    return mode != "none" and number.isdecimal() and int(number) % every == 0


def lower(model: nn.Module, plan: Plan, mode: str, every: int, attention: frozenset[Any]) -> None:
    """Recompute in every ``every``-th layer, counted over the whole model, in place.

    mode: none | selective | full. attention: the device's kernels of it.
    """
    rules = plan.match(name for name, _ in model.named_parameters()) if mode == "selective" else {}
    for number, layer in model.get_submodule(plan.layers).named_children():
        if not covers(plan, mode, every, f"{plan.layers}.{number}"):
            continue
        contexts = _full
        if mode == "selective":
            prefix = f"{plan.layers}.{number}."
            rows = {name.rpartition(".")[0] for name, rule in rules.items() if rule.cut == "row"}
            contexts = _selective(
                [model.get_submodule(path) for path in rows if path.startswith(prefix)], KEPT | attention
            )
        # Not a wrapper module: parameters keep their names, and other hooks stay around it.
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )


def _full() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _recomputation(nullcontext())


def _selective(rows: Sequence[nn.Module], kept: frozenset[Any]) -> Contexts:
    """rows: linears that end a block. Their results are as large as the layer's input, under sequence parallelism many
    times as large, and nothing in the backward pass reads them.
    """
    inside = 0

    def count(step: int) -> Callable[..., None]:
        def move(*_: Any) -> None:
            nonlocal inside
            inside += step

        return move

    for row in rows:
        row.register_forward_pre_hook(count(1))
        # Also when torch has what it needs and breaks the repetition off, which it does by an exception in here.
        row.register_forward_hook(count(-1), prepend=True, always_call=True)

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operator in kept and not inside else CheckpointPolicy.PREFER_RECOMPUTE

    def make() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        keeping, again = create_selective_checkpoint_contexts(policy)
        return keeping, _recomputation(again)

    return make
