"""Attention of plain operators, block by block: memory grows with the sample's length, not with its square.

Forward, the softmax goes on from block to block of keys (Milakov and Gimelshein 2018, arXiv:1805.02867); all queries
that may look at a block meet it at once. Backward, a block of queries meets all of its keys, and shares are computed
again from the log-sum-exp (Dao et al. 2022, arXiv:2205.14135). So a graph grows with the number of blocks and not with
its square. As in plain_attend, products have the model's dtype; what is between them, and sums over blocks, are FP32.

Queries are [batch, key-value heads, group, queries, head_dim] here: heads of a group share keys that are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from trainer.backends.common.visible import Step, Visible
from trainer.backends.neuron.lowering.recompute import apart
from trainer.trainium import blocks

MASKED = -1e30
"""A score that nothing looks at: far below any other, and far from where FP32 and BF16 end."""


def blockwise_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Any) -> torch.Tensor:
    """As trainer.models.attention.attend. context.mask: a Visible."""
    result: torch.Tensor = _Blockwise.apply(q, k, v, *context.mask)
    return result


class _Blockwise(torch.autograd.Function):
    """Keeps queries, keys and values, and an FP32 log-sum-exp for each query and head."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *parts: Any) -> torch.Tensor:
        # Else the compiler might share the blocks' masks between layers, and keep them: together they are the square.
        grouped, *ids = apart(_grouped(q, k), *parts[:2])
        result, log_sums = _attend(grouped, k, v, _with(ids, parts))
        ctx.save_for_backward(q, k, v, log_sums, *parts[:4])
        ctx.rest = parts[4:]
        return result.flatten(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, log_sums, *saved = ctx.saved_tensors
        # Else the compiler might begin before there is a gradient: shares do not need it.
        q, k, v, gradient, *ids = apart(_grouped(q, k), k, v, _grouped(gradient, k), *saved[:2])
        parts = (*saved, *ctx.rest)
        of_q, of_k, of_v = _gradients(q, k, v, gradient, log_sums, _with(ids, parts))
        return of_q.flatten(1, 2), of_k, of_v, *[None] * len(parts)


def _with(ids: Sequence[torch.Tensor], parts: tuple[Any, ...]) -> Visible:
    """The Visible of these parts, with these ids of queries and keys."""
    return Visible(ids[0], ids[1], *parts[2:])


def _grouped(heads: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return heads.unflatten(1, (k.shape[1], -1))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: Visible) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, in the shape of q, and the log-sum-exps of its scores, FP32 [..., queries, 1]."""

    def nothing(rows: int) -> tuple[torch.Tensor, ...]:
        shape = (*q.shape[:3], rows)
        zeros = [torch.zeros(*shape, width, device=q.device) for width in (1, v.shape[-1])]
        return torch.full_like(zeros[0], MASKED), *zeros

    running = _Running(nothing)
    for step in visible.key_blocks(blocks.BLOCK):
        best, total, sums = running.of(step.queries)
        scores = _scores(q[..., step.queries, :], _after(k[:, :, step.keys], sums), visible, step)
        # Of a row that sees none of the blocks so far all shares are 1, until the first score that it sees makes its
        # factor 0. Each sees itself at last.
        best, before = torch.maximum(best, scores.amax(-1, keepdim=True)), best
        shares, factor = torch.exp(scores - best), torch.exp(before - best)
        total = total * factor + shares.sum(-1, keepdim=True)
        sums = sums * factor + _product(shares.to(v.dtype), v[:, :, step.keys]).float()
        running.keep((best, total, sums), step.finished)
    best, total, sums = running.whole()
    return (sums / total).to(q.dtype), best + torch.log(total)


def _gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gradient: torch.Tensor,
    log_sums: torch.Tensor,
    visible: Visible,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of q, k and v. gradient: of the result, in the shape of q.

    Of a query all shares are there at once, for the mean of their gradients. It has to be that of the rounded ones:
    taken from the result, as flash attention does, it makes BF16 gradients of q and k up to 1.7 times as wrong.
    """
    running = _Running(lambda keys: (torch.zeros(*k.shape[:2], keys, k.shape[-1], device=k.device),) * 2)
    of_queries = []
    for step in visible.query_blocks(blocks.BLOCK):
        rows, incoming = q[..., step.queries, :], gradient[..., step.queries, :]
        of_k, of_v = running.of(step.keys)
        keys, values = _after(_after(k[:, :, step.keys], incoming), of_k), v[:, :, step.keys]
        shares = torch.exp(_scores(rows, keys, visible, step) - log_sums[..., step.queries, :])
        of_shares = _product(incoming, values.transpose(-1, -2)).float()
        mean = (shares * of_shares).sum(-1, keepdim=True)
        of_scores = (shares * (of_shares - mean) * q.shape[-1] ** -0.5).to(q.dtype)
        of_queries.append(_product(of_scores, keys))
        more = _over_queries(of_scores, rows), _over_queries(shares.to(v.dtype), incoming)
        running.keep((of_k + more[0].float(), of_v + more[1].float()), step.finished)
    of_k, of_v = running.whole()
    return torch.cat(of_queries, dim=-2), of_k.to(k.dtype), of_v.to(v.dtype)


def _scores(rows: torch.Tensor, keys: torch.Tensor, visible: Visible, step: Step) -> torch.Tensor:
    """FP32 [batch, key-value heads, group, queries, keys]; MASKED where a query may not look."""
    scores = _product(rows, keys.transpose(-1, -2)).float() * rows.shape[-1] ** -0.5
    return scores.masked_fill(~visible.mask(step.queries, step.keys).unsqueeze(1), MASKED)


def _after(tensor: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    """The same tensor, [batch, key-value heads, ...], when the earlier one is there.

    Blocks need nothing of one another's, so a compiler may compute them side by side, and those of the backward pass in
    the forward pass: XLA's for CPUs does, and drops barriers. No compiler may take zero times a number for zero.
    """
    zero = earlier.flatten(2)[..., :1].unsqueeze(-1) * 0
    return tensor + zero.to(tensor.dtype)


def _product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """[batch, heads, group, rows, m] by [batch, heads, m, n], which the group shares."""
    return torch.matmul(rows.flatten(2, 3), matrix).unflatten(2, rows.shape[2:4])


def _over_queries(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[batch, heads, group, queries, m] and [..., n] -> [batch, heads, m, n], summed over queries and group."""
    return torch.matmul(left.flatten(2, 3).transpose(-1, -2), right.flatten(2, 3))


class _Running:
    """Tensors [..., rows, width] that are made block by block. fresh: so many rows of each, before their first block.

    Only rows that blocks to come may change are handled: finished ones are put aside and never copied.
    """

    def __init__(self, fresh: Callable[[int], tuple[torch.Tensor, ...]]) -> None:
        self._fresh, self._open = fresh, fresh(0)
        self._finished: list[tuple[torch.Tensor, ...]] = []

    def of(self, rows: slice) -> tuple[torch.Tensor, ...]:
        """These rows. Those that no block before has met are fresh."""
        have, want = self._open[0].shape[-2], rows.stop - rows.start
        if have == want:
            return self._open
        fresh = self._fresh(want - have)
        return tuple(torch.cat(pair, dim=-2) for pair in zip(self._open, fresh, strict=True)) if have else fresh

    def keep(self, rows: tuple[torch.Tensor, ...], finished: int) -> None:
        """What a block has made of these rows, of which the first are finished."""
        if finished:
            self._finished.append(tuple(tensor[..., :finished, :] for tensor in rows))
            rows = tuple(tensor[..., finished:, :] for tensor in rows)
        self._open = rows

    def whole(self) -> tuple[torch.Tensor, ...]:
        """All rows, after the last block."""
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self._finished, strict=True))
