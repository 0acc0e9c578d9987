"""Context parallelism broken."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from tests.distributed.faults.registry import after, fault
from trainer.backends.common.share import Share
from trainer.backends.native.lowering import context_parallel
from trainer.backends.native.update.optimizer import Optimizer
from trainer.backends.native.update.reduction import Reduction
from trainer.batch import Batch


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
    Share.mask = lambda self, ids, window: original(self, torch.zeros_like(ids), window)  # type: ignore[method-assign]


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
